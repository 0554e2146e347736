"""Checks of the losses' inputs, by shape and type alone, so before any compilation."""

from typing import Any

import jax
import jax.numpy as jnp


def as_floats(*arrays: jax.typing.ArrayLike) -> tuple[jax.Array, ...]:
    """Returns the arrays in one float type: float64 if any of them has it, else float32.

    Half precision would lose the tails of a softmax, hence the upcast inside every loss.
    """
    as_arrays = [jnp.asarray(a) for a in arrays]
    for a in as_arrays:
        if not jnp.issubdtype(a.dtype, jnp.floating):
            raise TypeError(f"expected a floating-point array, got {a.dtype} of shape {a.shape}")
    double = any(a.dtype == jnp.float64 for a in as_arrays)
    return tuple(a.astype(jnp.float64 if double else jnp.float32) for a in as_arrays)


def require_same_shape(**arrays: jax.Array) -> None:
    """Raises ValueError unless all the named arrays have one shape."""
    if len({a.shape for a in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
        raise ValueError(f"shapes must be equal, got {shapes}")


def require_rank(name: str, array: jax.Array, at_least: int) -> None:
    """Raises ValueError if the named array has fewer dimensions than `at_least`."""
    if array.ndim < at_least:
        raise ValueError(f"{name} needs at least {at_least} dimensions, got shape {array.shape}")


def require_positive(name: str, value: Any) -> None:
    """Raises ValueError if a plain number is not above zero; traced values pass."""
    if isinstance(value, int | float) and not value > 0:
        raise ValueError(f"{name}={value!r} must be greater than 0")


def keep(where: jax.typing.ArrayLike | None, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Replaces the masked examples (axis 0) by zeros, so that neither value nor gradient sees them.

    Masking the input rather than the loss keeps NaN in a padded example out of the gradient.
    """
    if where is None:
        return arrays
    mask = jnp.asarray(where)
    if mask.dtype != jnp.bool_:
        raise TypeError(f"where must be boolean, got {mask.dtype}")
    for a in arrays:
        if mask.shape != a.shape[:1]:
            raise ValueError(f"where needs shape {a.shape[:1]}, one per example, got {mask.shape}")
    return tuple(jnp.where(mask.reshape((-1,) + (1,) * (a.ndim - 1)), a, 0) for a in arrays)
