"""Puts networks, method and optimizers together, and checks that they fit before compiling."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from afd_jax import losses
from afd_jax.cohort import PRECISIONS, Cohort, Peer, dummy_batch
from afd_jax.dependence import used_inputs
from afd_jax.errors import SettingError, first_line, one_of
from afd_jax.forward import apply_peer
from afd_jax.heads import BoundHead
from afd_jax.initial import state_shapes, zeros
from afd_jax.methods.base import Method
from afd_jax.networks.branched import Branched, single
from afd_jax.networks.outputs import Outputs, as_nodes


def make_cohort(
    networks: Sequence[nn.Module],
    method: Method,
    optimizers: Mapping[str, optax.GradientTransformation],
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    names: Sequence[str] | None = None,
    teachers: Sequence[nn.Module] = (),
    teacher_names: Sequence[str] | None = None,
    alone: bool = False,
    total_steps: int | None = None,
    steps_per_epoch: int | None = None,
    examples: int = 0,
    precision: str = "float32",
) -> Cohort:
    """Checks that networks, method and data fit together, and says who trains what.

    Args:
      networks: Flax modules; the same object may stand for several.
      method: graph and losses.
      optimizers: {"logit": ..., "feature": ..., "discriminator": ...}; those that the method does
        not use may be missing.
      image_shape: (height, width, channels).
      classes: number of classes.
      names: for logs and errors, one per network; the modules' class names if None.
      teachers: frozen networks, whose variables `init_state` takes.
      teacher_names: likewise.
      alone: add a twin of every network, after them all, that starts from the same parameters and
        has no edges.
      total_steps: of the run; only methods with a ramp-up or the like need it.
      steps_per_epoch: only methods that look at epochs need it.
      examples: of the training set; only methods that keep something of each need it.
      precision: "float32", or "bfloat16": see `Cohort`.

    Raises:
      SettingError: if the number of networks is not the method's, a network cannot take the images
        or returns no proper logits and feature map, or an optimizer is missing.
    """
    if precision not in PRECISIONS:
        raise SettingError("precision", precision, one_of(precision, PRECISIONS))
    names = _names("names", names, networks)
    teacher_names = _names("teacher_names", teacher_names, teachers)
    _check_method(method, names, teacher_names)
    _check_length(method, total_steps, steps_per_epoch, examples)
    peers = make_peers(networks, names, method, alone=alone)
    peers += [Peer(n, t, (n,), frozen=True) for n, t in zip(teacher_names, teachers, strict=True)]
    shapes = _check_networks("networks", names, networks, image_shape, classes)
    teacher_shapes = _check_networks("teachers", teacher_names, teachers, image_shape, classes)
    if alone:
        graph = method.graph.with_room(len(networks), len(networks))
        method = dataclasses.replace(method, graph=graph)
    shapes = shapes * (2 if alone or method.follower else 1) + teacher_shapes
    branched = any(len(peer.nodes) > 1 for peer in peers)
    if not branched:
        peers = [
            dataclasses.replace(
                peer,
                projections=method.projections(k, shapes),
                discriminators=method.discriminators(k, shapes),
            )
            for k, peer in enumerate(peers)
        ]
    members = peers[0].network.branches if branched else len(networks) or len(teachers)
    cohort = Cohort(
        peers=tuple(peers),
        members=members,
        method=method,
        image_shape=image_shape,
        classes=classes,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        examples=examples,
        alone=alone,
        precision=precision,
    )
    if method.graph.count != len(cohort.nodes):
        remedy = f"the graph has {method.graph.count} nodes, the networks make {len(cohort.nodes)}"
        raise SettingError("graph", method.graph.edges, remedy)
    if branched:  # each branch must be usable by itself
        state = state_shapes(cohort).peers[0]
        single(peers[0].network, {"params": state.params["network"]}, 0)
    masks = _who_trains_what(cohort)
    if method.second_forward and not any("feature" in updates for updates in masks):
        remedy = "has no effect, for the method has no feature losses; leave it out"
        raise SettingError("method.second_forward", method.second_forward, remedy)
    peers = [
        dataclasses.replace(peer, optimizers=_masked(peer.name, optimizers, masks[p]))
        for p, peer in enumerate(peers)
    ]
    return dataclasses.replace(cohort, peers=tuple(peers))


def _check_method(method: Method, names: Sequence[str], teachers: Sequence[str]) -> None:
    """Raises SettingError unless the method is for these networks and teachers."""
    for field, given, wanted, what in (
        ("networks", names, method.network_count, "network"),
        ("teachers", teachers, method.teachers, "teacher"),
    ):
        if len(given) != wanted:
            of = f"{wanted} {what}" + ("" if wanted == 1 else "s")
            remedy = f"{type(method).__name__} with this graph takes {of}"
            raise SettingError(field, given, remedy)
    if teachers and method.own_augmentation and len(names) > 1:
        remedy = "a teacher sees one augmentation of a batch; leave it out, or train one network"
        raise SettingError("method.own_augmentation", method.own_augmentation, remedy)
    first = len(names)
    for edge in method.graph.edges:
        if not method.takes_peers and max(edge) < first:
            remedy = f"{type(method).__name__} has no edges between networks that train"
            raise SettingError("graph", edge, remedy)
        if edge[1] >= method.graph.count - method.teachers:
            remedy = f"node {edge[1]} is a frozen teacher, which learns from nobody"
            raise SettingError("graph", edge, remedy)


def _check_length(
    method: Method, total_steps: int | None, steps_per_epoch: int | None, examples: int
) -> None:
    """Raises SettingError if the method must know more about the run."""
    if method.needs_progress and not total_steps:
        remedy = "say how long the run is; a weight of the method depends on it"
        raise SettingError("total_steps", total_steps, remedy)
    if method.needs_epochs and not steps_per_epoch:
        remedy = "say how long an epoch is; the method looks at epochs"
        raise SettingError("steps_per_epoch", steps_per_epoch, remedy)
    if method.uses_examples and not examples:
        remedy = "say how many there are; the method keeps something of each"
        raise SettingError("examples", examples, remedy)


def make_peers(
    networks: Sequence[nn.Module], names: Sequence[str], method: Method, *, alone: bool = False
) -> list[Peer]:
    """The networks that a method trains, in the order of a state; no heads, no optimizers.

    Those asked for, as they are or in branches, come first; then their twins, or their followers.

    Raises:
      SettingError: if a network cannot be branched, or is to have a twin and cannot.
    """
    peers = []
    for k, (name, network) in enumerate(zip(names, networks, strict=True)):
        module = method.branch(name, network)
        peer = Peer(name, module, (name,), start=k)
        if isinstance(module, Branched):
            nodes = tuple(f"{name} {node}" for node in module.nodes)
            views = module.branches if method.own_augmentation else 1
            peer = dataclasses.replace(peer, nodes=nodes, views=views)
            if alone:
                remedy = "the branches share layers, so none has a twin; train the network by "
                remedy += "itself in another run, with config.method.name='independent'"
                raise SettingError("alone", alone, remedy)
        peers.append(peer)
    if alone and not method.takes_twins:
        remedy = f"{type(method).__name__} has no twins; train the network by itself in another "
        remedy += "run, with config.method.name='independent'"
        raise SettingError("alone", alone, remedy)
    if alone:
        twins = [(f"{peer.name} alone", peer) for peer in peers]
        peers += [dataclasses.replace(p, name=name, nodes=(name,)) for name, p in twins]
    if method.follower is not None:
        of = method.follower.name
        peers += [
            dataclasses.replace(
                peer,
                name=f"{of} {peer.name}",
                nodes=tuple(f"{of} {node}" for node in peer.nodes),
                follows=p,
                frozen=method.follower.evaluates,
            )
            for p, peer in enumerate(peers)
        ]
    return peers


def _names(field: str, names: Sequence[str] | None, modules: Sequence[nn.Module]) -> list[str]:
    if names is None:
        return [type(module).__name__ for module in modules]
    if len(names) != len(modules):
        raise SettingError(field, names, f"give one for each of the {len(modules)} networks")
    return list(names)


def _check_networks(
    field: str,
    names: Sequence[str],
    networks: Sequence[nn.Module],
    image_shape: tuple[int, int, int],
    classes: int,
) -> list[Outputs]:
    """The outputs' shapes; a network that stands for several nodes is traced once."""
    checked: dict[int, Outputs] = {}
    for k, (name, network) in enumerate(zip(names, networks, strict=True)):
        if id(network) not in checked:
            at = f"{field}[{k}]"
            checked[id(network)] = _check_network(at, name, network, image_shape, classes)
    return [checked[id(network)] for network in networks]


def _check_network(
    field: str, name: str, network: nn.Module, image_shape: tuple[int, int, int], classes: int
) -> Outputs:
    if not isinstance(network, nn.Module):
        raise SettingError(field, name, "must be a Flax Linen module")
    try:
        hash(network)  # equal networks are traced once
    except TypeError as error:
        remedy = "has a field that cannot be hashed; give a tuple instead of a list"
        raise SettingError(field, name, remedy) from error
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    key = jax.random.key(0)

    def run(images: jax.Array) -> Any:
        evaluated, variables = network.init_with_output(key, images, train=False)
        statistics = [name for name in variables if name != "params"]
        trained, _ = network.apply(
            variables, images, train=True, mutable=statistics, rngs={"dropout": key}
        )
        return evaluated, trained

    try:
        results = jax.eval_shape(run, images)
    except SettingError as error:
        raise SettingError(f"{field} ({name}): {error.field}", error.value, error.remedy) from error
    except Exception as error:
        remedy = f"cannot take images of shape {image_shape}: {first_line(error)}"
        raise SettingError(field, name, remedy) from error
    for result, mode in zip(results, ("train=False", "train=True"), strict=True):
        problem = _problem(result, classes)
        if problem:
            raise SettingError(field, name, f"{problem} with {mode}")
    evaluated, trained = (as_nodes(result)[0] for result in results)
    if evaluated.features.shape != trained.features.shape:
        remedy = "must return feature maps of one shape with train=True and train=False"
        raise SettingError(field, name, remedy)
    return trained


def _problem(result: Any, classes: int) -> str | None:
    """What is wrong with a network's answer to two images, if anything is."""
    if not isinstance(result, Outputs) and not (isinstance(result, tuple) and len(result) == 2):
        return f"must return Outputs(logits, features), returns {type(result).__name__}"
    if len(as_nodes(result)) > 1:
        return "must return Outputs(logits, features), returns several"
    (outputs,) = as_nodes(result)
    logits, features = outputs.logits, outputs.features
    shape = getattr(logits, "shape", None)
    if shape != (2, classes):
        return f"must return logits of shape [batch, {classes}], returns {_batched(shape)}"
    shape = getattr(features, "shape", None)
    if shape is None or len(shape) != 4 or shape[0] != 2 or 0 in shape:
        return (
            "must return a feature map [batch, height, width, channels] beside the logits, "
            f"returns {_batched(shape)}"
        )
    for what, array in (("logits", logits), ("feature map", features)):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            return f"must return a floating-point {what}, returns {array.dtype}"
    return None


def _batched(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else f"[{', '.join(['batch', *map(str, shape[1:])])}]"


def _who_trains_what(cohort: Cohort) -> list[dict[str, Any]]:
    """Per network and update, which parameters the loss depends on: read off the traced program.

    So the feature optimizer leaves the classifier alone, and the logit optimizer the transfer
    layer, weight decay included, for any network, without a naming convention.
    """
    images, batch = dummy_batch(cohort)
    rngs = {"dropout": jax.random.key(0)}
    shapes = state_shapes(cohort)
    variables, context = shapes.peers, cohort.context(batch, zeros(shapes))

    def totals(all_params: list[Any]) -> list[dict[str, jax.Array]]:
        states = [
            dataclasses.replace(v, params=p) for v, p in zip(variables, all_params, strict=True)
        ]
        statistics = [zeros(s.statistics) for s in states]
        heads: list[dict[str, Any]] = [
            {n: BoundHead(m, zeros(v.discriminators[n])) for n, m in peer.discriminators.items()}
            for peer, v in zip(cohort.peers, variables, strict=True)
        ]
        outputs = [
            output
            for p in range(len(states))
            for output in apply_peer(cohort, p, states[p].params, statistics[p], images, rngs)[0]
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

    params = [v.params for v in variables]
    closed, result = jax.make_jaxpr(totals, return_shape=True)(params)
    treedef, outputs = jax.tree.structure(params), itertools.count()
    masks: list[dict[str, Any]] = []
    for p, updates in enumerate(result):
        masks.append({})
        for update in sorted(updates):  # the order in which a program returns a dict
            used = used_inputs(closed.jaxpr, next(outputs))
            masks[p][update] = jax.tree.unflatten(treedef, used)[p]
        if cohort.peers[p].discriminators:
            masks[p]["discriminator"] = True
    return masks


def _masked(
    name: str, optimizers: Mapping[str, optax.GradientTransformation], masks: Mapping[str, Any]
) -> dict[str, optax.GradientTransformation]:
    for update in masks:
        if update not in optimizers:
            remedy = f"the method updates {name} by its {update} loss; give that optimizer too"
            raise SettingError("optimizers", sorted(optimizers), remedy)
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
