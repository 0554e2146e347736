"""One network and the method's layers on top of it, run on a batch."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from afd_jax.engine.cohort import Cohort
from afd_jax.networks.heads import BoundHead
from afd_jax.networks.outputs import Outputs, as_nodes

Variables = Mapping[str, Any]  # as for `module.apply`


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
    result, updated = run_network(peer.network, variables, images, dict(rngs), train=train)
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
    outputs = project(cohort, p, as_nodes(result), heads)
    projected = {name: split(head.variables)[0] for name, head in heads.items()}
    return outputs, {"network": dict(updated), "projections": projected}


@functools.partial(jax.jit, static_argnames=("network", "train"))
def run_network(
    network: nn.Module, variables: Variables, images: jax.Array, rngs: Any, train: bool
) -> Any:
    """What the module returns, and what it updated; equal networks are traced once."""
    mutable = [name for name in variables if name != "params"] if train else []
    return network.apply(variables, images, train=train, mutable=mutable, rngs=rngs)


def project(
    cohort: Cohort, p: int, outputs: Sequence[Outputs], heads: Mapping[str, BoundHead]
) -> tuple[Outputs, ...]:
    """The outputs of peer p's nodes, with what the method's layers make of them."""
    pairs = zip(cohort.nodes_of(p), outputs, strict=False)
    if not heads:
        return tuple(own for _, own in pairs)
    return tuple(
        dataclasses.replace(own, extras=cohort.method.project(k, own, heads)) for k, own in pairs
    )


def split(variables: Variables) -> tuple[dict[str, Any], Any]:
    """(all collections but the parameters, the parameters)."""
    rest = dict(variables)
    params = rest.pop("params", {})
    return rest, params
