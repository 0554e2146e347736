"""What adversarial methods share: pairs of losses by name, and how well a discriminator tells."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from afd_jax import losses
from afd_jax.errors import SettingError, one_of


class Objective(NamedTuple):
    """A pair of adversarial losses; `sigmoid` if they take scores in [0, 1]."""

    discriminator: Callable[[jax.Array, jax.Array], jax.Array]
    generator: Callable[[jax.Array], jax.Array]
    sigmoid: bool


OBJECTIVES = {
    "least_squares": Objective(
        losses.least_squares_discriminator, losses.least_squares_generator, sigmoid=True
    ),
    "bce": Objective(losses.bce_discriminator, losses.bce_generator, sigmoid=False),
    "hinge": Objective(losses.hinge_discriminator, losses.hinge_generator, sigmoid=False),
    "wasserstein": Objective(
        losses.wasserstein_discriminator, losses.wasserstein_generator, sigmoid=False
    ),
}


def require_objective(name: str) -> None:
    """Raises SettingError unless `name` is one of `OBJECTIVES`."""
    if name not in OBJECTIVES:
        raise SettingError("method.objective", name, one_of(name, OBJECTIVES))


def verdicts(objective: Objective, real: jax.Array, fake: jax.Array) -> dict[str, jax.Array]:
    """Which scores [batch] are on the right side of the middle, as 0 or 1."""
    middle = 0.5 if objective.sigmoid else 0.0
    return {
        "real_accuracy": (real > middle).astype(jnp.float32),
        "fake_accuracy": (fake < middle).astype(jnp.float32),
    }
