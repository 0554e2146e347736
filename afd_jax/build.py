"""Puts networks, method and optimizers together, and checks that they fit before compiling."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import optax
from flax import linen as nn

from afd_jax import losses
from afd_jax.cohort import Cohort, Peer, apply_peer, as_outputs, dummy_batch, state_shapes
from afd_jax.errors import SettingError
from afd_jax.heads import BoundHead
from afd_jax.methods.base import Method
from afd_jax.networks.outputs import Outputs


def make_cohort(
    networks: Sequence[nn.Module],
    method: Method,
    optimizers: Mapping[str, optax.GradientTransformation],
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    names: Sequence[str] | None = None,
    starts: Sequence[int] | None = None,
) -> Cohort:
    """Checks that networks, method and data fit together, and says who trains what.

    Args:
      networks: one Flax module per node, all different objects or the same one repeated.
      method: graph and losses.
      optimizers: {"logit": ..., "feature": ..., "discriminator": ...}; those that the method does
        not use may be missing.
      image_shape: (height, width, channels).
      classes: number of classes.
      names: for logs and errors; the modules' class names if None.
      starts: nodes with an equal number get equal initial parameters; all differ if None.

    Raises:
      SettingError: if the number of networks is not the graph's, a network cannot take the images
        or returns no proper logits and feature map, or an optimizer is missing.
    """
    names = list(names or (type(network).__name__ for network in networks))
    count = method.graph.count
    if len(networks) != count:
        raise SettingError("networks", names, f"the graph has {count} nodes; give one network each")
    shapes = [
        _check_network(k, names[k], network, image_shape, classes)
        for k, network in enumerate(networks)
    ]
    peers = tuple(
        Peer(
            names[k],
            network,
            method.projections(k, shapes),
            method.discriminators(k, shapes),
            start=starts[k] if starts else k,
        )
        for k, network in enumerate(networks)
    )
    cohort = Cohort(peers, method, image_shape, classes)
    masks = _who_trains_what(cohort)
    peers = tuple(
        dataclasses.replace(peer, optimizers=_masked(peer.name, optimizers, masks[k]))
        for k, peer in enumerate(peers)
    )
    return dataclasses.replace(cohort, peers=peers)


def _check_network(
    k: int, name: str, network: nn.Module, image_shape: tuple[int, int, int], classes: int
) -> Outputs:
    field = f"networks[{k}]"
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)

    def run(images: jax.Array) -> Any:
        return network.init_with_output(jax.random.key(0), images, train=False)[0]

    try:
        result = jax.eval_shape(run, images)
    except SettingError as error:
        raise SettingError(f"{field} ({name}): {error.field}", error.value, error.remedy) from error
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        remedy = f"cannot take images of shape {image_shape}: {reason}"
        raise SettingError(field, name, remedy) from error
    pair = isinstance(result, Outputs) or (isinstance(result, tuple) and len(result) == 2)
    if not pair:
        remedy = f"must return Outputs(logits, features), returns {type(result).__name__}"
        raise SettingError(field, name, remedy)
    outputs = as_outputs(result)
    logits, features = (getattr(x, "shape", None) for x in (outputs.logits, outputs.features))
    if logits != (2, classes):
        remedy = f"must return logits of shape [batch, {classes}], returns {_batched(logits)}"
        raise SettingError(field, name, remedy)
    if features is None or len(features) != 4 or features[0] != 2 or 0 in features:
        remedy = (
            "must return a feature map [batch, height, width, channels] beside the logits, "
            f"returns {_batched(features)}"
        )
        raise SettingError(field, name, remedy)
    return outputs


def _batched(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else f"[{', '.join(['batch', *map(str, shape[1:])])}]"


def _who_trains_what(cohort: Cohort) -> list[dict[str, Any]]:
    """Per node and update, which parameters the loss depends on: read off the traced program.

    So the feature optimizer leaves the classifier alone, and the logit optimizer the transfer
    layer, weight decay included, for any network, without a naming convention.
    """
    images, batch = dummy_batch(cohort)
    rngs = {"dropout": jax.random.key(0)}
    variables = state_shapes(cohort).peers

    def totals(all_params: list[Any]) -> list[dict[str, jax.Array]]:
        states = [
            dataclasses.replace(v, params=p) for v, p in zip(variables, all_params, strict=True)
        ]
        zeros = [_zeros(s.statistics) for s in states]
        heads = [
            {n: BoundHead(m, _zeros(v.discriminators[n])) for n, m in peer.discriminators.items()}
            for peer, v in zip(cohort.peers, variables, strict=True)
        ]
        outputs = [
            apply_peer(cohort, k, states[k].params, zeros[k], images, rngs)[0]
            for k in range(len(states))
        ]
        results = []
        for k in range(len(states)):
            terms = {"logit": cohort.method.logit_terms(k, outputs, batch)[0]}
            terms["feature"] = cohort.method.feature_terms(k, outputs, heads[k])[0]
            results.append({u: _total(t) for u, t in terms.items() if t})
        return results

    params = [v.params for v in variables]
    closed, result = jax.make_jaxpr(totals, return_shape=True)(params)
    used = iter(_used_inputs(closed.jaxpr))
    treedef = jax.tree.structure(params)
    masks: list[dict[str, Any]] = []
    for k, updates in enumerate(result):
        masks.append({})
        for update in sorted(updates):
            mask = jax.tree.unflatten(treedef, next(used))
            masks[k][update] = mask[k]
        if cohort.peers[k].discriminators:
            masks[k]["discriminator"] = True
    return masks


def _used_inputs(jaxpr: jax.extend.core.Jaxpr) -> list[list[bool]]:
    """For each output, which inputs it depends on; each equation depends on all of its inputs."""
    results = []
    for out in jaxpr.outvars:
        needed = {out} if not isinstance(out, jax.extend.core.Literal) else set()
        for equation in reversed(jaxpr.eqns):
            if any(var in needed for var in equation.outvars):
                invars = equation.invars
                needed |= {v for v in invars if not isinstance(v, jax.extend.core.Literal)}
        results.append([var in needed for var in jaxpr.invars])
    return results


def _masked(
    name: str, optimizers: Mapping[str, optax.GradientTransformation], masks: Mapping[str, Any]
) -> dict[str, optax.GradientTransformation]:
    for update in masks:
        if update not in optimizers:
            remedy = f"the method updates {name} by its {update} loss; give that optimizer too"
            raise SettingError("optimizers", sorted(optimizers), remedy)
    return {
        update: optimizers[update] if mask is True else optax.masked(optimizers[update], mask)
        for update, mask in masks.items()
    }


def _total(terms: Mapping[str, jax.Array]) -> jax.Array:
    return jnp.asarray(sum(losses.mean(values) for values in terms.values()))


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
