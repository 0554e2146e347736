"""The parts of a step one by one, for looking at them; `engine.step` does the same in one."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from afd_jax.engine.evaluate import Images, as_floats
from afd_jax.engine.forward import apply, bind, mean_losses, terms_of
from afd_jax.engine.inputs import keys_of, loss_key, partners_of, views
from afd_jax.engine.plan import ByNode, Plan
from afd_jax.engine.state import TrainState
from afd_jax.methods.method import UPDATES, Terms

Params = Mapping[str, Any]


def forward(
    plan: Plan, state: TrainState, batch: Mapping[str, jax.Array], preprocess: Images = as_floats
) -> ByNode:
    """What every node says of a batch, as in training; no statistics are kept."""
    return _forward(plan, _params(state), state, batch, preprocess)


def losses(
    plan: Plan, state: TrainState, batch: Mapping[str, jax.Array], preprocess: Images = as_floats
) -> dict[str, Terms]:
    """The terms of each node that learns, one value per example."""
    return _losses(plan, _params(state), state, batch, preprocess)


def gradients(
    plan: Plan, state: TrainState, batch: Mapping[str, jax.Array], preprocess: Images = as_floats
) -> dict[str, dict[str, Any]]:
    """By network and update the gradient of the sum of its batch means, {"network", "heads"}.

    All at the parameters of the state; zeros for what the update does not move.
    """
    params = _params(state)

    def total(own: Any, name: str, update: str) -> jax.Array:
        terms = _losses(plan, {**params, name: own}, state, batch, preprocess)
        nodes = {node: terms[node] for node in plan.networks[name].nodes if node in terms}
        return jnp.asarray(sum(mean_losses(nodes, update).values()))

    def of(name: str, update: str) -> Any:
        gradient = jax.grad(total)(params[name], name, update)
        mask = plan.networks[name].trains[update]
        return jax.tree.map(lambda g, moved: g if moved else jnp.zeros_like(g), gradient, mask)

    return {
        name: {update: of(name, update) for update in UPDATES if update in network.trains}
        for name, network in plan.networks.items()
        if network.trains
    }


def _params(state: TrainState) -> dict[str, Any]:
    return {name: own.params for name, own in state.networks.items()}


def _forward(
    plan: Plan, params: Params, state: TrainState, batch: Mapping[str, Any], preprocess: Images
) -> ByNode:
    image_rng, network_rng = keys_of(state)
    images = views(plan, preprocess, image_rng, batch)
    outputs: ByNode = {}
    for n, (name, network) in enumerate(plan.networks.items()):
        rngs = {"dropout": jax.random.fold_in(network_rng, n)}
        statistics = state.networks[name].statistics
        outputs |= apply(plan, network, params[name], statistics, images[name], rngs)[0]
    return outputs


def _losses(
    plan: Plan, params: Params, state: TrainState, batch: Mapping[str, Any], preprocess: Images
) -> dict[str, Terms]:
    outputs = _forward(plan, params, state, batch, preprocess)
    keys = keys_of(state)
    partners = partners_of(plan, state, preprocess, keys, batch)
    seen = plan.seen(batch, state.step, state.memory, key=loss_key(keys[0]))
    heads: dict[str, Any] = {}
    for name, network in plan.networks.items():
        heads |= bind(network, params[name]["heads"], state.networks[name].statistics["heads"])
    variables = {name: own.variables for name, own in state.networks.items()}
    terms: dict[str, Terms] = {}
    for network in plan.networks.values():
        terms |= terms_of(plan, network, outputs, heads, variables, partners, seen)
    return terms
