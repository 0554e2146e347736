"""The networks that train together, with method and optimizers: what stays the same during a run.

`afd_jax.build.make_cohort` makes one and checks it; `init_state` makes its arrays.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from afd_jax.errors import SettingError
from afd_jax.heads import BoundHead
from afd_jax.methods.base import Method
from afd_jax.networks.outputs import Outputs
from afd_jax.state import PeerState, TrainState

UPDATES = ("logit", "feature", "discriminator")


@dataclasses.dataclass(frozen=True)
class Peer:
    """One node of the graph, without its arrays.

    Attributes:
      name: for logs.
      network: Flax module that returns `Outputs`.
      projections: the method's layers on top of the network, by name.
      discriminators: the discriminators this node owns, by name.
      optimizers: those of `UPDATES` that the method uses for this node.
      start: number that the network's first parameters are drawn from; equal for a node and its
        twin, so that they start from the same ones.
    """

    name: str
    network: nn.Module
    projections: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
    discriminators: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
    optimizers: Mapping[str, optax.GradientTransformation] = dataclasses.field(default_factory=dict)
    start: int = 0


@dataclasses.dataclass(frozen=True)
class Cohort:
    """All nodes, the method that connects them, and the shape of their input.

    Attributes:
      peers: the nodes, in the graph's order.
      members: how many of them, counted from the first, are the networks asked for; the others are
        their twins, which learn alone.
      method: graph and losses.
      image_shape: (height, width, channels).
      classes: number of classes.
    """

    peers: tuple[Peer, ...]
    members: int
    method: Method
    image_shape: tuple[int, int, int]
    classes: int

    def synchronised(self, axis_name: str) -> "Cohort":
        """A copy whose BatchNorm layers average their statistics over a device axis.

        Raises:
          SettingError: if a network has BatchNorm statistics but no field `axis_name`.
        """

        def clone(module: nn.Module) -> nn.Module:
            return module.clone(axis_name=axis_name) if hasattr(module, "axis_name") else module

        for k, (peer, state) in enumerate(zip(self.peers, state_shapes(self).peers, strict=True)):
            has_statistics = jax.tree.leaves(state.statistics["network"])
            if has_statistics and not hasattr(peer.network, "axis_name"):
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


def init_state(cohort: Cohort, rng: jax.Array) -> TrainState:
    """Makes the arrays of a new run, compiled as one program.

    Args:
      cohort: as made by `make_cohort`.
      rng: a key, `jax.random.key(seed)`.
    """
    # Optimising this program takes the CPU compiler seconds and saves milliseconds.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(functools.partial(_init, cohort), compiler_options=options)(rng)


def state_shapes(cohort: Cohort) -> TrainState:
    """The state of a new run as shapes and types, without computing it."""
    return jax.eval_shape(functools.partial(_init, cohort), jax.random.key(0))


def _init(cohort: Cohort, rng: jax.Array) -> TrainState:
    peers = []
    for peer, state in zip(cohort.peers, init_variables(cohort, rng), strict=True):
        trained = {"logit": state.params, "feature": state.params}
        trained["discriminator"] = {n: v["params"] for n, v in state.discriminators.items()}
        opt = {name: tx.init(trained[name]) for name, tx in peer.optimizers.items()}
        peers.append(dataclasses.replace(state, optimizers=opt))
    step = jnp.zeros((), jnp.int32)
    return TrainState(step=step, rng=jax.random.key_data(rng), peers=tuple(peers))


def init_variables(cohort: Cohort, rng: jax.Array) -> list[PeerState]:
    """Parameters and statistics of all nodes, without optimizer states."""
    images, _ = dummy_batch(cohort)
    states, outputs = [], []
    for peer in cohort.peers:
        # A network's key depends on `start` alone, so that a twin starts where its original does.
        key = jax.random.fold_in(jax.random.fold_in(rng, 0), peer.start)
        result, variables = peer.network.init_with_output(key, images, train=False)
        statistics, params = _split(variables)
        states.append(PeerState({"network": params}, {"network": statistics}, {}, {}))
        outputs.append(as_outputs(result))
    for k, peer in enumerate(cohort.peers):
        key = jax.random.fold_in(jax.random.fold_in(rng, 1), k)
        heads = _unbound(peer.projections, jax.random.fold_in(key, 0))
        outputs[k] = dataclasses.replace(
            outputs[k], projected=cohort.method.project(k, outputs[k], heads)
        )
        variables = {name: _split(_initialised(name, head)) for name, head in heads.items()}
        states[k].params["projections"] = {name: params for name, (_, params) in variables.items()}
        states[k].statistics["projections"] = {name: rest for name, (rest, _) in variables.items()}
    for k, peer in enumerate(cohort.peers):
        key = jax.random.fold_in(jax.random.fold_in(rng, 2), k)
        heads = _unbound(peer.discriminators, key)
        cohort.method.discriminator_terms(k, outputs, heads)
        states[k] = dataclasses.replace(
            states[k],
            discriminators={name: _initialised(name, head) for name, head in heads.items()},
        )
    return states


def as_outputs(result: Any) -> Outputs:
    """Accepts `Outputs` or a plain (logits, features) pair from a network."""
    return result if isinstance(result, Outputs) else Outputs(*result)


def apply_peer(
    cohort: Cohort,
    k: int,
    params: Any,
    statistics: Any,
    images: jax.Array,
    rngs: Mapping[str, jax.Array],
) -> tuple[Outputs, Any]:
    """Runs network k and its projections in training mode.

    Args:
      cohort: the static description.
      k: node.
      params: {"network": ..., "projections": ...}.
      statistics: the same keys.
      images: [batch, height, width, channels], normalised.
      rngs: keys for the network's stochastic layers, {"dropout": key}.

    Returns:
      The outputs, and the updated statistics.
    """
    peer = cohort.peers[k]
    result, updated = peer.network.apply(
        {"params": params["network"], **statistics["network"]},
        images,
        train=True,
        mutable=list(statistics["network"]),
        rngs=dict(rngs),
    )
    heads = {
        name: BoundHead(
            module, {"params": params["projections"][name], **statistics["projections"][name]}
        )
        for name, module in peer.projections.items()
    }
    outputs = as_outputs(result)
    outputs = dataclasses.replace(outputs, projected=cohort.method.project(k, outputs, heads))
    projected = {name: _split(head.variables)[0] for name, head in heads.items()}
    return outputs, {"network": dict(updated), "projections": projected}


def dummy_batch(cohort: Cohort) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Images of zeros and what comes with them: enough to trace the program."""
    index = jnp.arange(2, dtype=jnp.int32)
    return jnp.zeros((2, *cohort.image_shape), jnp.float32), {
        "label": jnp.zeros_like(index),
        "index": index,
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
