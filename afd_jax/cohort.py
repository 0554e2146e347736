"""The networks that train together, with method and optimizers: what stays the same during a run.

`afd_jax.build.make_cohort` makes one and checks it; `init_state` makes its arrays.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from afd_jax.compiler import once_options
from afd_jax.errors import SettingError
from afd_jax.heads import BoundHead
from afd_jax.methods.base import Context, Method
from afd_jax.networks.outputs import Outputs, as_nodes
from afd_jax.state import PeerState, TrainState

UPDATES = ("logit", "feature", "discriminator")
PRECISIONS = ("float32", "bfloat16")
Variables = Mapping[str, Any]  # as for `module.apply`


@dataclasses.dataclass(frozen=True)
class Peer:
    """One network and what belongs to it, without its arrays.

    Attributes:
      name: for logs.
      network: Flax module that returns `Outputs`, or a tuple of them.
      nodes: names of its nodes in the graph: its own name, or one for each of its outputs.
      projections: the method's layers on top of the network, by name.
      discriminators: the discriminators this node owns, by name.
      optimizers: those of `UPDATES` that the method uses for this node.
      start: number that the network's first parameters are drawn from; equal for a network and its
        twin, so that they start from the same ones.
      views: how many augmentations of a batch it takes, beside each other on axis 1; 1 is none.
      follows: number of the peer that this one is the follower of; None if it is none.
      frozen: neither parameters nor statistics ever change in a step; it runs as in evaluation.
        Layers that the method puts on top of it may train all the same.
    """

    name: str
    network: nn.Module
    nodes: tuple[str, ...]
    projections: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
    discriminators: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
    optimizers: Mapping[str, optax.GradientTransformation] = dataclasses.field(default_factory=dict)
    start: int = 0
    views: int = 1
    follows: int | None = None
    frozen: bool = False


@dataclasses.dataclass(frozen=True)
class Cohort:
    """All networks, the method that connects their nodes, and the shape of their input.

    Attributes:
      peers: the networks; their nodes, one after the other, are those of the graph.
      members: how many nodes, counted from the first, are the networks or branches asked for. The
        others are their twins, which learn alone, or what else the method makes of them, and, at
        the end, frozen teachers.
      method: graph and losses.
      image_shape: (height, width, channels).
      classes: number of classes.
      total_steps: of the run, if it is known.
      steps_per_epoch: likewise.
      examples: of the training set, likewise.
      alone: whether the nodes after the members are their twins.
      precision: of the networks' own arithmetic in training. With "bfloat16" the network and the
        gradients inside it are computed in half precision; parameters, BatchNorm's statistics,
        what the network returns, losses, heads and optimizers stay in float32.
    """

    peers: tuple[Peer, ...]
    members: int
    method: Method
    image_shape: tuple[int, int, int]
    classes: int
    total_steps: int | None = None
    steps_per_epoch: int | None = None
    examples: int = 0
    alone: bool = False
    precision: str = "float32"

    @property
    def teachers(self) -> range:
        """Numbers of the peers that are frozen teachers: the last ones."""
        return range(len(self.peers) - self.method.teachers, len(self.peers))

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of all nodes."""
        return tuple(name for peer in self.peers for name in peer.nodes)

    def nodes_of(self, p: int) -> range:
        """Numbers of the nodes of peer p."""
        first = sum(len(peer.nodes) for peer in self.peers[:p])
        return range(first, first + len(self.peers[p].nodes))

    def context(self, batch: Mapping[str, jax.Array], state: TrainState) -> Context:
        """What losses on logits may look at beside the outputs."""
        progress = jnp.asarray(state.step, float) / (self.total_steps or jnp.inf)
        per_epoch = self.steps_per_epoch
        return Context(
            label=batch["label"],
            index=batch["index"],
            progress=progress,
            epoch=state.step // per_epoch if per_epoch else 0,
            epochs=(self.total_steps or math.inf) / per_epoch if per_epoch else math.inf,
            memory=state.memory,
        )

    def synchronised(self, axis_name: str) -> "Cohort":
        """A copy whose BatchNorm layers average their statistics over a device axis.

        Raises:
          SettingError: if a network has BatchNorm statistics but no field `axis_name`.
        """

        def clone(module: nn.Module) -> nn.Module:
            return module.clone(axis_name=axis_name) if hasattr(module, "axis_name") else module

        for k, (peer, state) in enumerate(zip(self.peers, state_shapes(self).peers, strict=True)):
            averages = not peer.frozen and jax.tree.leaves(state.statistics["network"])
            if averages and not hasattr(peer.network, "axis_name"):
                remedy = (
                    "has BatchNorm statistics but no field 'axis_name' to synchronise them over "
                    "devices; add `axis_name: str | None = None` and pass it to nn.BatchNorm"
                )
                raise SettingError(f"networks[{k}]", peer.name, remedy)
        peers = tuple(
            dataclasses.replace(
                peer,
                network=clone(peer.network),
                projections={name: clone(m) for name, m in peer.projections.items()},
                discriminators={name: clone(m) for name, m in peer.discriminators.items()},
            )
            for peer in self.peers
        )
        return dataclasses.replace(self, peers=peers)


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
        return over_seeds(functools.partial(_draw, network, cohort.image_shape, start))(rng)

    drawn = jax.jit(draw, static_argnums=0, compiler_options=options)
    networks = [
        zeros(jax.eval_shape(functools.partial(draw, peer.network, 0), rng))  # given below
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


def zeros(shapes: Any) -> Any:
    """Arrays of zeros; made by NumPy, for XLA would compile a program for each shape."""
    return jax.tree.map(lambda x: jnp.asarray(np.zeros(x.shape, x.dtype)), shapes)


def _placed(name: str, peer: PeerState, variables: Mapping[str, Any]) -> PeerState:
    """The state of a teacher, with its variables in place of those that were drawn."""
    own = dict(variables)
    heads = own.pop("heads", None)
    statistics, params = _split(own)
    new = dataclasses.replace(
        peer,
        params={**peer.params, "network": params},
        statistics={**peer.statistics, "network": statistics},
    )
    if heads is not None:
        layers = {n: _split(v) for n, v in heads.items() if n in peer.params["projections"]}
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


def state_shapes(cohort: Cohort) -> TrainState:
    """The state of a new run as shapes and types, without computing it."""

    def state(rng: jax.Array) -> TrainState:
        networks = [
            _draw(peer.network, cohort.image_shape, peer.start, rng) for peer in cohort.peers
        ]
        return _init(cohort, rng, networks)

    return jax.eval_shape(state, jax.random.key(0))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _draw(
    network: nn.Module, image_shape: tuple[int, int, int], start: int, rng: jax.Array
) -> Variables:
    """A network's variables. Its key depends on `start` alone: a twin starts as its original."""
    key = jax.random.fold_in(jax.random.fold_in(rng, 0), start)
    images = jnp.zeros((2, *image_shape), jnp.float32)
    return network.init(key, images, train=False)


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
    images, _ = dummy_batch(cohort)
    states: list[PeerState] = []
    outputs: list[Outputs] = []
    for peer, variables in zip(cohort.peers, networks, strict=True):
        statistics, params = _split(variables)
        states.append(PeerState({"network": params}, {"network": statistics}, {}, {}))
        outputs.extend(as_nodes(_run(peer.network, variables, images, {}, train=False)[0]))
    for p, peer in enumerate(cohort.peers):
        key = jax.random.fold_in(jax.random.fold_in(rng, 1), p)
        heads = _unbound(peer.projections, jax.random.fold_in(key, 0))
        nodes = cohort.nodes_of(p)
        outputs[nodes.start : nodes.stop] = _projected(cohort, p, outputs[nodes.start :], heads)
        variables = {name: _split(_initialised(name, head)) for name, head in heads.items()}
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


def _projected(
    cohort: Cohort, p: int, outputs: Sequence[Outputs], heads: Mapping[str, BoundHead]
) -> tuple[Outputs, ...]:
    """The outputs of peer p's nodes, with what the method's layers make of them."""
    pairs = zip(cohort.nodes_of(p), outputs, strict=False)
    if not heads:
        return tuple(own for _, own in pairs)
    return tuple(
        dataclasses.replace(own, extras=cohort.method.project(k, own, heads)) for k, own in pairs
    )


def apply_peer(
    cohort: Cohort,
    p: int,
    params: Any,
    statistics: Any,
    images: jax.Array,
    rngs: Mapping[str, jax.Array],
) -> tuple[tuple[Outputs, ...], Any]:
    """Runs a network and its projections in training mode.

    Args:
      cohort: the static description.
      p: number of the peer.
      params: {"network": ..., "projections": ...}.
      statistics: the same keys.
      images: [batch, height, width, channels], normalised; [batch, views, ...] for several views.
      rngs: keys for the network's stochastic layers, {"dropout": key}.

    Returns:
      The outputs of its nodes, and the updated statistics; those of a frozen network as they were.
    """
    peer = cohort.peers[p]
    own = params["network"]
    if peer.frozen:
        own = jax.lax.stop_gradient(own)
    if cohort.precision == "bfloat16":
        own, images = optax.tree.cast((own, images), jnp.bfloat16)
    variables, train = {"params": own, **statistics["network"]}, not peer.frozen
    result, updated = _run(peer.network, variables, images, dict(rngs), train=train)
    if peer.frozen:
        updated = statistics["network"]
    if cohort.precision == "bfloat16":
        result = optax.tree.cast(result, jnp.float32)
    heads = {
        name: BoundHead(
            module, {"params": params["projections"][name], **statistics["projections"][name]}
        )
        for name, module in peer.projections.items()
    }
    outputs = _projected(cohort, p, as_nodes(result), heads)
    projected = {name: _split(head.variables)[0] for name, head in heads.items()}
    return outputs, {"network": dict(updated), "projections": projected}


# A function of its own, so that equal networks are traced and differentiated once.
@functools.partial(jax.jit, static_argnames=("network", "train"))
def _run(
    network: nn.Module, variables: Variables, images: jax.Array, rngs: Any, train: bool
) -> Any:
    mutable = [name for name in variables if name != "params"] if train else []
    return network.apply(variables, images, train=train, mutable=mutable, rngs=rngs)


def dummy_batch(cohort: Cohort) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Images of zeros and what comes with them: enough to trace the program."""
    index = jnp.arange(2, dtype=jnp.int32)
    return jnp.zeros((2, *cohort.image_shape), jnp.float32), {
        "label": jnp.zeros_like(index),
        "index": index,
        "partner_image": jnp.zeros((2, *cohort.image_shape), jnp.float32),
        "partner": index,
    }


def _unbound(modules: Mapping[str, nn.Module], rng: jax.Array) -> dict[str, BoundHead]:
    return {
        name: BoundHead(module, rng=jax.random.fold_in(rng, i))
        for i, (name, module) in enumerate(modules.items())
    }


def _initialised(name: str, head: BoundHead) -> Any:
    if head.variables is None:
        raise RuntimeError(f"the method declares the head {name!r} but never calls it")
    return head.variables


def _split(variables: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    rest = dict(variables)
    params = rest.pop("params", {})
    return rest, params
