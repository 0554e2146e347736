"""Which parameters each update moves: those that its losses have a gradient for."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.custom_derivatives import SymbolicZero

from afd_jax.engine.forward import Heads, apply, bind, mean_losses, terms_of
from afd_jax.engine.init import state_shapes
from afd_jax.engine.plan import Network, Plan, blank_batch, blank_views
from afd_jax.engine.state import NetworkState
from afd_jax.errors import SettingError
from afd_jax.methods.method import UPDATES
from afd_jax.networks.heads import BoundHead


def who_trains_what(plan: Plan) -> dict[str, dict[str, Any]]:
    """Per network and update a tree like its parameters, True where the update moves one.

    Differentiation itself says so: each parameter goes through an identity whose derivative notes
    whether a gradient comes back. So the feature optimizer leaves the classifier alone, and the
    logit optimizer the transfer layer, weight decay included, for any network, without a naming
    convention. Heads that the discriminator's loss depends on belong to that update alone.

    Raises:
      SettingError: for a loss that depends on no parameter.
    """
    shapes, batch = state_shapes(plan), blank_batch(plan)
    reached: dict[tuple[str, str], set[str]] = {}
    named: dict[tuple[str, str], list[str]] = {}

    def total(params: Any, states: Any, memory: Any, update: str) -> jax.Array:
        noted = {
            name: state.replace(params=_noted(reached.setdefault((name, update), set()), own))
            for (name, state), own in zip(states.items(), params.values(), strict=True)
        }
        values = _losses(plan, noted, memory, batch, update)
        for name, own in values.items():
            named[name, update] = [term for _, term in own]
        return jnp.asarray(sum(v for own in values.values() for v in own.values()), float)

    params = {name: state.params for name, state in shapes.networks.items()}
    for update in UPDATES:
        gradient = jax.grad(functools.partial(total, update=update))
        jax.eval_shape(gradient, params, shapes.networks, shapes.memory)

    masks: dict[str, dict[str, Any]] = {}
    for name, own in params.items():
        critics = reached[name, "discriminator"]
        masks[name] = {}
        for update in UPDATES:
            moved = reached[name, update] - (critics if update != "discriminator" else set())
            if moved:
                masks[name][update] = _mask(own, moved)
            elif named[name, update]:
                remedy = (
                    f"its {update} loss for {name} depends on no parameter; return no such term"
                )
                raise SettingError("method", named[name, update][0], remedy)
    return masks


def _losses(
    plan: Plan, states: Mapping[str, NetworkState], memory: Any, batch: Any, update: str
) -> dict[str, dict[tuple[str, str], jax.Array]]:
    """All losses of an update, by network."""
    outputs: dict[str, Any] = {}
    heads: dict[str, dict[str, BoundHead]] = {}
    for name, network in plan.networks.items():
        state, rngs = states[name], {"dropout": jax.random.key(0)}
        images = blank_views(network, batch["image"])
        outputs |= apply(plan, network, state.params, state.statistics, images, rngs)[0]
        heads |= bind(network, state.params["heads"], state.statistics["heads"])
    if update == "discriminator":  # whose loss trains heads; networks are constants to it
        outputs = jax.lax.stop_gradient(outputs)
    partners = outputs if "partner_image" in batch else {}
    seen = plan.seen(batch, jnp.zeros((), jnp.int32), memory)
    return {
        name: mean_losses(
            terms_of(plan, network, outputs, _others_constant(network, heads), partners, seen),
            update,
        )
        for name, network in plan.networks.items()
    }


def _others_constant(network: Network, heads: Heads) -> Heads:
    """The heads of all nodes, those of other networks as constants."""

    def constant(head: BoundHead) -> BoundHead:
        return BoundHead(head.head, jax.lax.stop_gradient(head.variables))

    return {
        node: own if node in network.nodes else {n: constant(h) for n, h in own.items()}
        for node, own in heads.items()
    }


def _noted(reached: set[str], tree: Any) -> Any:
    """The same parameters; those that get a gradient are put into `reached`, by path."""

    def through(path: Any, leaf: jax.Array) -> jax.Array:
        @jax.custom_vjp
        def same(x: jax.Array) -> jax.Array:
            return x

        def backward(_: None, gradient: Any) -> tuple[Any]:
            if isinstance(gradient, SymbolicZero):
                return (jnp.zeros(gradient.shape, gradient.dtype),)
            reached.add(_path(path))
            return (gradient,)

        same.defvjp(lambda x: (x.value, None), backward, symbolic_zeros=True)
        return same(leaf)

    return jax.tree.map_with_path(through, tree)


def _mask(tree: Any, moved: set[str]) -> Any:
    """True for the leaves at these paths."""
    return jax.tree.map_with_path(lambda path, _: _path(path) in moved, tree)


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def only(optimizer: optax.GradientTransformation, mask: Any) -> optax.GradientTransformation:
    """The optimizer for the parameters of the mask; all others stay."""
    frozen = jax.tree.map(lambda wanted: not wanted, mask)
    return optax.selective_transform(optimizer, freeze_mask=frozen)
