"""What a run will cost, without training: parameters, arithmetic and memory per network."""

from typing import Any

import jax
import jax.numpy as jnp

from afd_jax.engine.forward import apply
from afd_jax.engine.init import state_shapes
from afd_jax.engine.plan import Network, Plan
from afd_jax.engine.state import NetworkState
from afd_jax.networks.branched import Branched, single
from afd_jax.networks.functional import Functional, functional
from afd_jax.reports.flops import count_flops

_MIB = 2**20


def describe(plan: Plan, batch_size: int) -> str:
    """The loss graph and a table of costs, for a terminal.

    FLOPs are those of convolutions and matrix products in a forward pass on one image: a
    multiply-add is two, and products with padding do not count. Memory per network: the state that
    stays (parameters, statistics, optimizer states, its heads), and what one forward pass keeps for
    the backward pass.

    Args:
      plan: of the run.
      batch_size: of one device.
    """
    shapes = state_shapes(plan).networks
    lines = [
        f"method {type(plan.method).__name__}; source -> target:",
        *("  " + line for line in str(plan.graph).splitlines()),
        "",
    ]
    width = 2 + max(len(name) for name in ["  of which a branch", *plan.networks])
    lines.append(
        f"{'network':<{width}}{'parameters':>12}{'+ heads':>10}{'MFLOPs/image':>14}"
        f"{'state MiB':>11}{'kept MiB':>10}"
    )
    for name, network in plan.networks.items():
        state, module = shapes[name], network.module.module
        variables, branched = network_variables(state), isinstance(module, Branched)
        inside = _count(variables["params"].get("heads", {})) if branched else 0
        own, heads = _count(variables["params"]) - inside, _count(state.params["heads"]) + inside
        flops = flops_per_image(plan, network.module, variables) / 1e6
        kept = activation_bytes(plan, network, state, batch_size) / _MIB
        lines.append(
            f"{name:<{width}}{own:>12,}{heads:>10,}{flops:>14.1f}"
            f"{_bytes(state) / _MIB:>11.1f}{kept:>10.1f}"
        )
        if branched:
            one, variables, _ = single(module, variables, 0)
            flops = flops_per_image(plan, functional(one), variables) / 1e6
            lines.append(
                f"{'  of which a branch':<{width}}{_count(variables['params']):>12,}"
                f"{'':>10}{flops:>14.1f}"
            )
    return "\n".join(lines)


def network_variables(state: NetworkState) -> dict[str, Any]:
    """What a network's module takes, out of its state."""
    return {"params": state.params["network"], **state.statistics["network"]}


def flops_per_image(plan: Plan, module: Functional, variables: Any) -> float:
    """Floating-point operations of a module's forward pass on one image."""
    image = jax.ShapeDtypeStruct((1, *plan.image_shape), jnp.float32)
    return count_flops(lambda v, x: module.apply(v, x, train=False)[0], variables, image)


def activation_bytes(plan: Plan, network: Network, state: NetworkState, batch_size: int) -> int:
    """Bytes that a network's forward pass keeps for the backward pass, before the compiler's work.

    These are the residuals of `jax.vjp` without the parameters themselves; fusion may keep fewer.
    """
    if not network.trains:  # it has no backward pass
        return 0
    views = (network.views,) if network.views > 1 else ()
    images = jax.ShapeDtypeStruct((batch_size, *views, *plan.image_shape), jnp.float32)

    def residuals(params: Any, statistics: Any, images: jax.Array) -> Any:
        def run(params: Any) -> Any:
            rngs = {"dropout": jax.random.key(0)}
            return apply(plan, network, params, statistics, images, rngs)

        return jax.vjp(run, params, has_aux=True)[1]

    pull = jax.eval_shape(residuals, state.params, state.statistics, images)
    return max(0, _bytes(pull) - _bytes(state.params))


def _count(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
