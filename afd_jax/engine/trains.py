"""Which parameters each optimizer moves: those that its loss depends on."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from afd_jax import losses
from afd_jax.engine.cohort import Cohort, batch_shapes
from afd_jax.engine.dependence import used_inputs
from afd_jax.errors import SettingError
from afd_jax.engine.forward import apply_peer
from afd_jax.networks.heads import BoundHead
from afd_jax.engine.init import state_shapes
from afd_jax.engine.state import TrainState


def who_trains_what(cohort: Cohort) -> list[dict[str, Any]]:
    """Per network and update, which parameters the loss depends on: read off the traced program.

    So the feature optimizer leaves the classifier alone, and the logit optimizer the transfer
    layer, weight decay included, for any network, without a naming convention.
    """
    state, batch = state_shapes(cohort), batch_shapes(cohort)

    def totals(
        all_params: list[Any], state: TrainState, batch: Mapping[str, jax.Array]
    ) -> list[dict[str, jax.Array]]:
        context = cohort.context(batch, state)
        rngs = {"dropout": jax.random.key(0)}
        heads: list[dict[str, Any]] = [
            {n: BoundHead(m, own.discriminators[n]) for n, m in peer.discriminators.items()}
            for peer, own in zip(cohort.peers, state.peers, strict=True)
        ]
        outputs = [
            output
            for p, own in enumerate(state.peers)
            for output in apply_peer(
                cohort, p, all_params[p], own.statistics, batch["image"], rngs
            )[0]
        ]
        results = []
        for p, peer in enumerate(cohort.peers):
            terms: dict[str, list[jax.Array]] = {"logit": [], "feature": []}
            seen = dataclasses.replace(context, discriminators=heads[p])
            for k in cohort.nodes_of(p) if peer.follows is None else ():
                if not cohort.method.learns(k):
                    continue
                terms["logit"] += cohort.method.logit_terms(k, outputs, seen)[0].values()
                terms["feature"] += cohort.method.feature_terms(k, outputs, heads[p])[0].values()
            results.append({u: _total(t) for u, t in terms.items() if t})
        return results

    params = [own.params for own in state.peers]
    closed, result = jax.make_jaxpr(totals, return_shape=True)(params, state, batch)
    leaves, treedef = jax.tree.flatten(params)
    outputs = itertools.count()
    masks: list[dict[str, Any]] = []
    for p, updates in enumerate(result):
        masks.append({})
        for update in sorted(updates):  # the order in which a program returns a dict
            used = used_inputs(closed.jaxpr, next(outputs))[: len(leaves)]
            masks[p][update] = jax.tree.unflatten(treedef, used)[p]
        if cohort.peers[p].discriminators:
            masks[p]["discriminator"] = True
    return masks


def masked(
    name: str, optimizers: Mapping[str, optax.GradientTransformation], masks: Mapping[str, Any]
) -> dict[str, optax.GradientTransformation]:
    """The optimizers of one network, each for the parameters of its mask.

    Args:
      name: of the network, for errors.
      optimizers: by update; those that the masks do not name are left out.
      masks: of this network, as from `who_trains_what`.

    Raises:
      SettingError: if an optimizer is missing, or would have nothing to move.
    """
    for update in masks:
        if update not in optimizers:
            remedy = f"the method updates {name} by its {update} loss; give that optimizer too"
            raise SettingError("optimizers", sorted(optimizers), remedy)
        if not any(jax.tree.leaves(masks[update])):
            remedy = f"its {update} loss for {name} depends on no parameter; return no such term"
            raise SettingError("method", f"{update}_terms", remedy)
    return {
        update: optimizers[update] if mask is True else _only(optimizers[update], mask)
        for update, mask in masks.items()
    }


def _only(optimizer: optax.GradientTransformation, mask: Any) -> optax.GradientTransformation:
    """Steps what the mask names and leaves the rest; `optax.masked` would pass its gradient on."""
    others = jax.tree.map(lambda wanted: not wanted, mask)
    return optax.chain(optax.masked(optimizer, mask), optax.masked(optax.set_to_zero(), others))


def _total(terms: Sequence[jax.Array]) -> jax.Array:
    return jnp.asarray(sum(losses.mean(values) for values in terms))
