"""The arrays that a run starts from."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from afd_jax.engine.cohort import Cohort
from afd_jax.cpu.compiler import once_options
from afd_jax.errors import SettingError
from afd_jax.engine.forward import Variables, project, run_network, split
from afd_jax.networks.heads import BoundHead
from afd_jax.networks.outputs import Outputs, as_nodes
from afd_jax.engine.state import PeerState, TrainState


def init_state(cohort: Cohort, rng: jax.Array, teachers: Sequence[Any] = ()) -> TrainState:
    """Makes the arrays of a new run; equal networks are drawn by one compiled program.

    Args:
      cohort: as made by `make_cohort`.
      rng: a key, `jax.random.key(seed)`, or [seeds] keys for as many runs side by side.
      teachers: variables of the cohort's frozen teachers, each {"params": ..., "batch_stats": ...}
        as for `module.apply`, with an axis of seeds if the keys have one; and for layers that were
        trained on top of them "heads": {name: variables}.

    Raises:
      SettingError: if variables are missing or not those of the teacher's network.
    """
    if len(teachers) != len(cohort.teachers):
        remedy = f"give the variables of each of the {len(cohort.teachers)} frozen teachers"
        raise SettingError("teachers", len(teachers), remedy)
    over_seeds = jax.vmap if rng.ndim else lambda function: function
    options = once_options(jax.default_backend())

    def draw(network: nn.Module, start: int, rng: jax.Array) -> Variables:
        return over_seeds(functools.partial(draw_network, network, cohort.image_shape, start))(rng)

    drawn = jax.jit(draw, static_argnums=0, compiler_options=options)
    networks = [
        _zeros(jax.eval_shape(functools.partial(draw, peer.network, 0), rng))  # given below
        if p in cohort.teachers
        else drawn(peer.network, peer.start, rng)
        for p, peer in enumerate(cohort.peers)
    ]
    init = over_seeds(functools.partial(_init, cohort))
    state = jax.jit(init, compiler_options=options)(rng, networks)
    peers = list(state.peers)
    for p, variables in zip(cohort.teachers, teachers, strict=True):
        peers[p] = _placed(cohort.peers[p].name, peers[p], variables)
    return dataclasses.replace(state, peers=tuple(peers))


def state_shapes(cohort: Cohort) -> TrainState:
    """The state of a new run as shapes and types, without computing it."""

    def state(rng: jax.Array) -> TrainState:
        networks = [
            draw_network(peer.network, cohort.image_shape, peer.start, rng) for peer in cohort.peers
        ]
        return _init(cohort, rng, networks)

    return jax.eval_shape(state, jax.random.key(0))


def _zeros(shapes: Any) -> Any:
    """Arrays of zeros; made by NumPy, for XLA would compile a program for each shape."""
    return jax.tree.map(lambda x: jnp.asarray(np.zeros(x.shape, x.dtype)), shapes)


@functools.partial(jax.jit, static_argnums=(0, 1))
def draw_network(
    network: nn.Module, image_shape: tuple[int, int, int], start: int, rng: jax.Array
) -> Variables:
    """A network's variables. Its key depends on `start` alone: a twin starts as its original."""
    key = jax.random.fold_in(jax.random.fold_in(rng, 0), start)
    return network.init(key, blank_images(image_shape), train=False)


def blank_images(shape: tuple[int, int, int]) -> jax.Array:
    """Two images of zeros, [2, height, width, channels]: enough to trace a network."""
    return jnp.zeros((2, *shape), jnp.float32)


def _init(cohort: Cohort, rng: jax.Array, networks: Sequence[Variables]) -> TrainState:
    peers = []
    for peer, state in zip(cohort.peers, _with_heads(cohort, rng, networks), strict=True):
        trained = {"logit": state.params, "feature": state.params}
        trained["discriminator"] = {n: v["params"] for n, v in state.discriminators.items()}
        opt = {name: tx.init(trained[name]) for name, tx in peer.optimizers.items()}
        peers.append(dataclasses.replace(state, optimizers=opt))
    step = jnp.zeros((), jnp.int32)
    return TrainState(
        step=step,
        rng=jax.random.key_data(rng),
        peers=tuple(peers),
        memory=cohort.method.init_memory(cohort.examples, cohort.classes),
    )


def _with_heads(cohort: Cohort, rng: jax.Array, networks: Sequence[Variables]) -> list[PeerState]:
    """Parameters and statistics of all networks and heads, without optimizer states."""
    images = blank_images(cohort.image_shape)
    states: list[PeerState] = []
    outputs: list[Outputs] = []
    for peer, variables in zip(cohort.peers, networks, strict=True):
        statistics, params = split(variables)
        states.append(PeerState({"network": params}, {"network": statistics}, {}, {}))
        outputs.extend(as_nodes(run_network(peer.network, variables, images, {}, train=False)[0]))
    for p, peer in enumerate(cohort.peers):
        key = jax.random.fold_in(jax.random.fold_in(rng, 1), p)
        heads = _unbound(peer.projections, jax.random.fold_in(key, 0))
        nodes = cohort.nodes_of(p)
        outputs[nodes.start : nodes.stop] = project(cohort, p, outputs[nodes.start :], heads)
        variables = {name: split(_initialised(name, head)) for name, head in heads.items()}
        states[p].params["projections"] = {name: params for name, (_, params) in variables.items()}
        states[p].statistics["projections"] = {name: rest for name, (rest, _) in variables.items()}
    for p, peer in enumerate(cohort.peers):
        key = jax.random.fold_in(jax.random.fold_in(rng, 2), p)
        heads = _unbound(peer.discriminators, key)
        for k in cohort.nodes_of(p):
            cohort.method.discriminator_terms(k, outputs, heads)
        states[p] = dataclasses.replace(
            states[p],
            discriminators={name: _initialised(name, head) for name, head in heads.items()},
        )
    return states


def _unbound(modules: Mapping[str, nn.Module], rng: jax.Array) -> dict[str, BoundHead]:
    return {
        name: BoundHead(module, rng=jax.random.fold_in(rng, i))
        for i, (name, module) in enumerate(modules.items())
    }


def _initialised(name: str, head: BoundHead) -> Any:
    if head.variables is None:
        raise RuntimeError(f"the method declares the head {name!r} but never calls it")
    return head.variables


def _placed(name: str, peer: PeerState, variables: Mapping[str, Any]) -> PeerState:
    """The state of a teacher, with its variables in place of those that were drawn."""
    own = dict(variables)
    heads = own.pop("heads", None)
    statistics, params = split(own)
    new = dataclasses.replace(
        peer,
        params={**peer.params, "network": params},
        statistics={**peer.statistics, "network": statistics},
    )
    if heads is not None:
        layers = {n: split(v) for n, v in heads.items() if n in peer.params["projections"]}
        new.params["projections"] = {n: p for n, (_, p) in layers.items()}
        new.statistics["projections"] = {n: s for n, (s, _) in layers.items()}
    wanted, given = (
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
            for path, leaf in jax.tree.leaves_with_path((state.params, state.statistics))
        }
        for state in (peer, new)
    )
    for path in {**wanted, **given}:
        if wanted.get(path) != given.get(path):
            remedy = (
                f"the network's {path} has shape {wanted.get(path)}, the given {given.get(path)}"
            )
            raise SettingError("teachers", name, remedy)
    return jax.tree.map(lambda old, x: jnp.array(x, old.dtype), peer, new)
