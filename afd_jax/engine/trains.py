"""Which parameters each update moves: those that its losses have a gradient for."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.custom_derivatives import SymbolicZero

from afd_jax.engine.forward import (
    Heads,
    answers_of,
    bind,
    mean_losses,
    split,
    terms_of,
    transferred,
)
from afd_jax.engine.init import state_shapes
from afd_jax.engine.plan import Network, Plan, blank_batch, blank_views
from afd_jax.engine.state import NetworkState
from afd_jax.errors import SettingError
from afd_jax.methods.method import UPDATES, Terms
from afd_jax.networks.functional import draw, run
from afd_jax.networks.heads import BoundHead
from afd_jax.networks.outputs import as_nodes


def who_trains_what(plan: Plan) -> dict[str, dict[str, Any]]:
    """Per network and update a tree like its parameters, True where the update moves one.

    Differentiation itself says so: outputs and parameters go through an identity whose derivative
    notes whether a gradient comes back. So the feature optimizer leaves the classifier alone, and
    the logit optimizer the transfer layer, weight decay included, for any network, without a naming
    convention. Heads that the discriminator's loss depends on belong to that update alone.

    Raises:
      SettingError: for a loss that depends on no parameter.
    """
    shapes = state_shapes(plan)
    answers = {name: answers_of(plan, network) for name, network in plan.networks.items()}
    heads = {name: state.params["heads"] for name, state in shapes.networks.items()}
    reached: dict[tuple[str, str], set[str]] = {}  # outputs and heads, by (network, update)
    named: dict[tuple[str, str], list[str]] = {}

    def total(
        answers: Any, heads: Any, networks: Mapping[str, NetworkState], memory: Any, update: str
    ) -> jax.Array:
        noted = {
            name: _noted(
                reached.setdefault((name, update), set()),
                {"outputs": answers[name], "heads": heads[name]},
            )
            for name in plan.networks
        }
        values = _losses(plan, noted, networks, memory, update)
        for name, own in values.items():
            named[name, update] = [term for _, term in own]
        return jnp.asarray(sum(v for own in values.values() for v in own.values()), float)

    for update in UPDATES:
        gradient = jax.grad(functools.partial(total, update=update), (0, 1))
        jax.eval_shape(gradient, answers, heads, shapes.networks, shapes.memory)

    masks: dict[str, dict[str, Any]] = {}
    parts: dict[Any, set[str]] = {}  # equal networks are looked into once
    for name, network in plan.networks.items():
        critics = {path for path in reached[name, "discriminator"] if path.startswith("heads/")}
        masks[name] = {}
        for update in UPDATES:
            if update == "discriminator":
                moved = critics
            else:
                moved = reached[name, update] - critics
                outputs = frozenset(path for path in moved if path.startswith("outputs/"))
                key = network.module, network.views, outputs
                if outputs and key not in parts:
                    parts[key] = _reached_by(plan, network, outputs)
                moved = moved - outputs | parts.get(key, set())
            if moved:
                masks[name][update] = _mask(shapes.networks[name].params, moved)
            elif named[name, update]:
                remedy = f"its {update} loss for {name} depends on no parameter; "
                raise SettingError("method", named[name, update][0], remedy + "return no such term")
    return masks


def _losses(
    plan: Plan,
    noted: Mapping[str, Any],
    states: Mapping[str, NetworkState],
    memory: Any,
    update: str,
) -> dict[str, dict[tuple[str, str], jax.Array]]:
    """All losses of an update, by network, from outputs and heads that are noted."""
    outputs: dict[str, Any] = {}
    heads: dict[str, dict[str, BoundHead]] = {}
    for name, network in plan.networks.items():
        heads |= bind(network, noted[name]["heads"], states[name].statistics["heads"])
        own = zip(network.nodes, noted[name]["outputs"], strict=True)
        outputs |= {node: transferred(output, heads.get(node, {})) for node, output in own}
    if update == "discriminator":  # whose loss trains heads; networks are constants to it
        outputs = jax.lax.stop_gradient(outputs)
    batch = blank_batch(plan)
    partners = outputs if "partner_image" in batch else {}
    seen = plan.seen(batch, jnp.zeros((), jnp.int32), memory)
    variables = {name: own.variables for name, own in states.items()}

    def terms(network: Network) -> Mapping[str, Terms]:
        constants = _others_constant(network, heads)
        return terms_of(plan, network, outputs, constants, variables, partners, seen)

    return {name: mean_losses(terms(network), update) for name, network in plan.networks.items()}


def _reached_by(plan: Plan, network: Network, outputs: frozenset[str]) -> set[str]:
    """Which of a network's parameters have a gradient from some of its outputs."""
    reached: set[str] = set()

    def total(params: Any, statistics: Any, key: jax.Array) -> jax.Array:
        noted = _noted(reached, {"network": params})["network"]
        images = blank_views(network, blank_batch(plan)["image"])
        variables = {"params": noted, **statistics}
        result, _ = run(network.module, variables, images, {"dropout": key}, True)
        leaves = jax.tree.leaves_with_path({"outputs": as_nodes(result)})
        return jnp.asarray(sum(jnp.sum(x) for path, x in leaves if _path(path) in outputs))

    def gradient(key: jax.Array) -> Any:
        variables = draw(network.module, plan.image_shape, network.start, key)
        statistics, params = split(variables)
        return jax.grad(total)(params, statistics, key)

    jax.eval_shape(gradient, jax.random.key(0))
    return reached


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
    paths = [_path(path) for path, _ in jax.tree.leaves_with_path(tree)]
    leaves, treedef = jax.tree.flatten(tree)

    @jax.custom_vjp
    def same(leaves: list[jax.Array]) -> list[jax.Array]:
        return leaves

    def forward(leaves: Any) -> tuple[list[jax.Array], None]:
        return [leaf.value for leaf in leaves], None

    def backward(_: None, gradients: Any) -> tuple[list[jax.Array]]:
        zero = [isinstance(gradient, SymbolicZero) for gradient in gradients]
        reached.update(path for path, without in zip(paths, zero, strict=True) if not without)
        pairs = zip(gradients, zero, strict=True)
        return ([jnp.zeros(g.shape, g.dtype) if without else g for g, without in pairs],)

    same.defvjp(forward, backward, symbolic_zeros=True)
    return jax.tree.unflatten(treedef, same(leaves))


def _mask(tree: Any, moved: set[str]) -> Any:
    """True for the leaves at these paths."""
    return jax.tree.map_with_path(lambda path, _: _path(path) in moved, tree)


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def only(optimizer: optax.GradientTransformation, mask: Any) -> optax.GradientTransformation:
    """The optimizer for the parameters of the mask; all others stay."""
    frozen = jax.tree.map(lambda wanted: not wanted, mask)
    return optax.selective_transform(optimizer, freeze_mask=frozen)


def held(paused: jax.Array, before: Any, after: Any) -> Any:
    """Parameters and optimizer states as before where a network is paused, else as after a step.

    What a learning rate's schedule counts goes on: schedules go by the time of the run.
    """
    injected = optax.schedules.InjectStatefulHyperparamsState

    def counts(tree: Any) -> bool:
        return isinstance(tree, optax.ScaleByScheduleState | injected)

    def one(old: Any, new: Any) -> Any:
        if isinstance(old, injected):
            return new._replace(inner_state=held(paused, old.inner_state, new.inner_state))
        return new if counts(old) else jnp.where(paused, old, new)

    return jax.tree.map(one, before, after, is_leaf=counts)
