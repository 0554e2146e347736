"""What a run will cost, without training: parameters, arithmetic and memory."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from afd_jax.engine.evaluate import eval_step
from afd_jax.engine.forward import apply
from afd_jax.engine.init import state_shapes
from afd_jax.engine.plan import Network, Plan, blank_batch
from afd_jax.engine.state import NetworkState, TrainState
from afd_jax.engine.step import train_step
from afd_jax.networks.branched import Branched, single
from afd_jax.networks.functional import Functional, functional
from afd_jax.reports.flops import count_flops, flops_and_shapes

_MIB = 2**20


@dataclasses.dataclass(frozen=True)
class NetworkCost:
    """One network, or one branch of it.

    Attributes:
      name: of the network; for a branch, words.
      parameters: without heads.
      heads: parameters of the heads; None for a branch, as are the next two.
      flops: of a forward pass on one image.
      state: bytes that stay: parameters, statistics, optimizer states, its heads.
      kept: bytes that one forward pass keeps for the backward pass.
    """

    name: str
    parameters: int
    heads: int | None
    flops: float
    state: int | None
    kept: int | None


@dataclasses.dataclass(frozen=True)
class Costs:
    """A run's, for one seed.

    Attributes:
      networks: each apart.
      step_flops: of a whole step on a whole batch: forward and backward passes, all updates.
      state: bytes of the whole state, as a checkpoint holds it.
      kept: bytes that the forward passes of one device keep for the backward passes.
      batch: bytes of one device's images, as floats, in all their views.
      metrics: what a step measures, by node, as shapes.
      evaluated: what an evaluation sums up, as shapes.
    """

    networks: tuple[NetworkCost, ...]
    step_flops: float
    state: int
    kept: int
    batch: int
    metrics: Any
    evaluated: Any


def costs(plan: Plan, batch_size: int, devices: int = 1) -> Costs:
    """What a plan costs, without compiling anything.

    Args:
      plan: of the run.
      batch_size: over all devices.
      devices: that share the batch.
    """
    shapes, own_batch = state_shapes(plan), batch_size // devices
    networks = [each for name in plan.networks for each in _network(plan, shapes, name, own_batch)]
    batch = _batch(plan, batch_size)

    def step(state: Any, batch: Any) -> Any:
        return train_step(plan, state, batch, detailed=False)

    flops, (_, metrics) = flops_and_shapes(step, shapes, batch)
    changing = [name for name, network in plan.networks.items() if network.role != "teacher"]
    seen = batch | {"mask": jax.ShapeDtypeStruct((batch_size,), jnp.bool_)}
    views = sum(n.views for n in plan.networks.values()) if plan.own_augmentation else 1
    return Costs(
        networks=tuple(networks),
        step_flops=flops,
        state=tree_bytes(shapes),
        kept=sum(each.kept or 0 for each in networks),
        batch=own_batch * math.prod(plan.image_shape) * 4 * (views + plan.method.pairs),
        metrics=metrics,
        evaluated=jax.eval_shape(
            lambda s, b: eval_step(plan, s, b, networks=changing), shapes, seen
        ),
    )


def describe(plan: Plan, cost: Costs) -> str:
    """The loss graph and a table of the networks' costs, for a terminal.

    FLOPs are those of convolutions and matrix products in a forward pass on one image: a
    multiply-add is two, and products with padding do not count.
    """
    lines = [
        f"method {type(plan.method).__name__}; source -> target:",
        *("  " + line for line in str(plan.graph).splitlines()),
        "",
    ]
    width = 2 + max(len(each.name) for each in cost.networks)
    lines.append(
        f"{'network':<{width}}{'parameters':>12}{'+ heads':>10}{'MFLOPs/image':>14}"
        f"{'state MiB':>11}{'kept MiB':>10}"
    )
    for each in cost.networks:
        row = f"{each.name:<{width}}{each.parameters:>12,}"
        row += f"{'' if each.heads is None else format(each.heads, ','):>10}"
        row += f"{each.flops / 1e6:>14.1f}"
        if each.state is not None and each.kept is not None:
            row += f"{each.state / _MIB:>11.1f}{each.kept / _MIB:>10.1f}"
        lines.append(row)
    return "\n".join(lines)


def _network(plan: Plan, shapes: TrainState, name: str, batch_size: int) -> Iterator[NetworkCost]:
    """The network, and a branch of it if it has some."""
    network, state = plan.networks[name], shapes.networks[name]
    module, variables = network.module.module, network_variables(state)
    branched = isinstance(module, Branched)
    inside = _count(variables["params"].get("heads", {})) if branched else 0
    yield NetworkCost(
        name=name,
        parameters=_count(variables["params"]) - inside,
        heads=_count(state.params["heads"]) + inside,
        flops=flops_per_image(plan, network.module, variables),
        state=tree_bytes(state),
        kept=activation_bytes(plan, network, state, batch_size),
    )
    if branched:
        one, variables, _ = single(module, variables, 0)
        flops = flops_per_image(plan, functional(one), variables)
        count = _count(variables["params"])
        yield NetworkCost("  of which a branch", count, None, flops, None, None)


def _batch(plan: Plan, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What a step takes, images as floats."""
    blank = jax.eval_shape(lambda: blank_batch(plan))
    return {name: x.update(shape=(size, *x.shape[1:])) for name, x in blank.items()}


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

    # A parameter that is stored unchanged takes no extra memory.
    jaxpr = jax.make_jaxpr(residuals)(state.params, state.statistics, images).jaxpr
    params = {id(x) for x in jaxpr.invars[: len(jax.tree.leaves(state.params))]}
    kept = {id(x): x.aval for x in jaxpr.outvars if id(x) not in params}
    return tree_bytes(kept)


def _count(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def tree_bytes(tree: Any) -> int:
    """Of all arrays, or shapes of arrays."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
