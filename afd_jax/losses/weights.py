"""Weights of losses that change during a run."""

import jax
import jax.numpy as jnp

from afd_jax.losses import checks


def ramp_up_weight(progress: jax.typing.ArrayLike, *, length: float) -> jax.Array:
    r"""Weight that rises smoothly to 1, $\exp(-5 (1 - p / l)^2)$ for $p < l$.

    Laine and Aila, "Temporal Ensembling for Semi-Supervised Learning", 2017; ONE, OKDDip and PCL
    take it over 80 of 300 epochs. It starts at 0.0067.

    Args:
      progress: how far the run is, in the unit of `length`; floating point.
      length: where the weight reaches 1, above 0.

    Returns:
      The shape of `progress`, float32 (float64 for float64 input).

    Raises:
      ValueError: if `length` is not above 0. TypeError: if `progress` is not floating point.

    >>> print(ramp_up_weight(jnp.array([0.0, 40.0, 80.0, 200.0]), length=80).round(4))
    [0.0067 0.2865 1.     1.    ]
    """
    checks.number("length", length, above=0)
    (progress,) = checks.as_floats(progress)
    missing = 1 - jnp.clip(progress / length, 0, 1)
    return jnp.exp(-5 * jnp.square(missing))
