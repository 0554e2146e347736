"""What a run will cost, without training: parameters, arithmetic and memory per network."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from afd_jax.runs.assemble import Run
from afd_jax.engine.cohort import Cohort
from afd_jax.engine.forward import apply_peer
from afd_jax.engine.init import state_shapes
from afd_jax.networks.as_written import as_written
from afd_jax.networks.branched import Branched, single
from afd_jax.engine.state import PeerState

_MIB = 2**20


def describe(run: Run) -> str:
    """The loss graph and a table of costs, for a terminal.

    FLOPs are the compiler's own count for a forward pass on one image: a multiply-add is two, and
    products with padding do not count.
    Memory per network: the state that stays (parameters, statistics, optimizer states, its
    discriminators), and what one forward pass keeps for the backward pass at this batch size.
    """
    cohort, parallel = run.cohort, run.parallel
    state = state_shapes(cohort)
    per_device = run.batch_size // len(parallel.devices)
    lines = [
        f"method {type(cohort.method).__name__}; source -> target:",
        *("  " + line for line in cohort.method.graph.text(cohort.nodes).splitlines()),
        "",
    ]
    width = 2 + max(len(name) for name in ["  of which a branch", *(p.name for p in cohort.peers)])
    lines.append(
        f"{'network':<{width}}{'parameters':>12}{'+ heads':>10}{'MFLOPs/image':>14}"
        f"{'state MiB':>11}{'kept MiB':>10}"
    )
    for p, peer in enumerate(state.peers):
        module, variables = cohort.peers[p].network, network_variables(peer)
        branched = isinstance(module, Branched)
        heads = _count(peer.params["projections"])
        heads += sum(_count(v["params"]) for v in peer.discriminators.values())
        heads += _count(variables["params"].get("heads", {})) if branched else 0
        own = _count(variables["params"]) - (heads if branched else 0)
        flops = flops_per_image(cohort, module, variables) / 1e6
        kept = activation_bytes(cohort, p, peer, per_device) / _MIB
        lines.append(
            f"{cohort.peers[p].name:<{width}}{own:>12,}{heads:>10,}{flops:>14.1f}"
            f"{_bytes(peer) / _MIB:>11.1f}{kept:>10.1f}"
        )
        if branched:
            module, variables, _ = single(module, variables, 0)
            flops = flops_per_image(cohort, module, variables) / 1e6
            lines.append(
                f"{'  of which a branch':<{width}}{_count(variables['params']):>12,}"
                f"{'':>10}{flops:>14.1f}"
            )
    lines += [
        "",
        f"data: {len(run.splits.train):,} train, {len(run.splits.heldout):,} held out, "
        f"{len(run.splits.test):,} test; images {run.splits.image_shape}, "
        f"{run.splits.classes} classes",
        f"{run.total_steps:,} steps of {run.batch_size} images "
        f"({run.total_steps / run.steps_per_epoch:.4g} epochs) on {len(parallel.devices)} x "
        f"{parallel.devices[0].platform}, {parallel.mode}"
        + (f", {len(run.seeds)} seeds at once (all costs per seed)" if len(run.seeds) > 1 else ""),
    ]
    return "\n".join(lines)


def network_variables(peer: PeerState) -> dict[str, Any]:
    """What a network's module takes, out of its state."""
    return {"params": peer.params["network"], **peer.statistics["network"]}


def flops_per_image(cohort: Cohort, module: nn.Module, variables: Any) -> float:
    """Floating-point operations of a module's forward pass on one image."""
    image = jax.ShapeDtypeStruct((1, *cohort.image_shape), jnp.float32)
    network = functools.partial(module.apply, train=False)
    with as_written():
        analysis = jax.jit(network).lower(variables, image).cost_analysis()
    return float((analysis or {}).get("flops", math.nan))


def activation_bytes(cohort: Cohort, p: int, peer: Any, batch_size: int) -> int:
    """Bytes that a network's forward pass keeps for the backward pass, before the compiler's work.

    These are the residuals of `jax.vjp` without the parameters themselves; fusion may keep fewer.
    """
    if cohort.peers[p].follows is not None:  # it has no backward pass
        return 0
    views = (cohort.peers[p].views,) if cohort.peers[p].views > 1 else ()
    images = jax.ShapeDtypeStruct((batch_size, *views, *cohort.image_shape), jnp.float32)

    def residuals(params: Any, statistics: Any, images: jax.Array) -> Any:
        def run(params: Any) -> Any:
            return apply_peer(cohort, p, params, statistics, images, {"dropout": jax.random.key(0)})

        return jax.vjp(run, params, has_aux=True)[1]

    pull = jax.eval_shape(residuals, peer.params, peer.statistics, images)
    return max(0, _bytes(pull) - _bytes(peer.params))


def _count(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
