"""Averages and snapshots, which move with the students that they belong to."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from afd_jax.engine.plan import Plan
from afd_jax.engine.state import NetworkState


def follow(
    plan: Plan, states: Mapping[str, NetworkState], step: jax.Array
) -> dict[str, NetworkState]:
    """Moves them, after their students have been updated.

    The decay of an average is min(1 - 1/(t+1), d) after update t, so that early averages are plain
    means (Tarvainen and Valpola, "Mean teachers are better role models", 2017); it has statistics
    of its own. A snapshot takes parameters and statistics over at the end of an epoch.
    """
    updates = step + 1

    def average(old: jax.Array, new: jax.Array) -> jax.Array:
        t = jnp.asarray(updates, float)
        decay = jnp.minimum(1 - 1 / (t + 1), plan.average_decay)
        return (decay * old + (1 - decay) * new).astype(old.dtype)

    def latest(old: jax.Array, new: jax.Array) -> jax.Array:
        assert plan.steps_per_epoch is not None
        return jnp.where(updates % plan.steps_per_epoch == 0, new, old)

    moved = dict(states)
    for name, network in plan.networks.items():
        if network.of is None or network.role not in ("average", "snapshot"):
            continue
        own, student = states[name], states[network.of]
        change = average if network.role == "average" else latest
        params = jax.tree.map(change, own.params["network"], student.params["network"])
        own = dataclasses.replace(own, params={**own.params, "network": params})
        if network.role == "snapshot":
            pairs = own.statistics["network"], student.statistics["network"]
            statistics = jax.tree.map(latest, *pairs)
            own = dataclasses.replace(own, statistics={**own.statistics, "network": statistics})
        moved[name] = own
    return moved
