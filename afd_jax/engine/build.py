"""Puts networks, method and optimizers together, and checks that they fit before compiling."""

import dataclasses
from collections.abc import Mapping, Sequence

import optax
from flax import linen as nn

from afd_jax.engine.cohort import PRECISIONS, Cohort, Peer
from afd_jax.networks.contract import check_networks
from afd_jax.errors import SettingError, one_of
from afd_jax.engine.init import state_shapes
from afd_jax.engine.trains import masked, who_trains_what
from afd_jax.methods.method import Method
from afd_jax.networks.branched import Branched, single


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
    shapes = check_networks("networks", names, networks, image_shape, classes)
    teacher_shapes = check_networks("teachers", teacher_names, teachers, image_shape, classes)
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
    masks = who_trains_what(cohort)
    if method.second_forward and not any("feature" in updates for updates in masks):
        remedy = "has no effect, for the method has no feature losses; leave it out"
        raise SettingError("method.second_forward", method.second_forward, remedy)
    peers = [
        dataclasses.replace(peer, optimizers=masked(peer.name, optimizers, masks[p]))
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
