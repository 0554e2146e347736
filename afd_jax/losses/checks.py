"""Checks of the losses' inputs, by shape and type alone, so before any compilation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


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


def require_rows(name: str, array: jax.Array) -> None:
    """Raises ValueError unless the named array has two dimensions, and is not empty."""
    require_rank(name, array, 2)
    if array.ndim > 2:
        raise ValueError(f"{name} needs 2 dimensions, got shape {array.shape}")


def require_rank(name: str, array: jax.Array, at_least: int) -> None:
    """Raises ValueError if the named batch has fewer dimensions than `at_least`, or is empty."""
    if array.ndim < at_least:
        raise ValueError(f"{name} needs at least {at_least} dimensions, got shape {array.shape}")
    if 0 in array.shape:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")


def known(value: Any) -> np.ndarray | None:
    """The value if it is at hand, None for one that is traced or lies on other hosts."""
    if isinstance(value, jax.core.Tracer):
        return None
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return None
    return np.asarray(value)


def number(
    name: str,
    value: jax.typing.ArrayLike,
    *,
    above: float = -np.inf,
    least: float = -np.inf,
    below: float = np.inf,
    most: float = np.inf,
    batch: int | None = None,
) -> Any:
    """A finite real number within bounds; of a traced one, only shape and type are checked.

    Args:
      name: for the error.
      value: Python's, NumPy's or JAX's.
      above: exclusive bound.
      least: inclusive bound.
      below: exclusive bound.
      most: inclusive bound.
      batch: where one number per example is allowed, too: their number.

    Returns:
      The value, in float32 if it is an array of a narrower type or of integers; one number per
      example as [batch, 1], for rows.

    Raises:
      ValueError: for another shape, or a number that is not finite or out of bounds.
      TypeError: for what is no real number.
    """
    shape, wanted = np.shape(value), "a number" if batch is None else f"a number or [{batch}]"
    kind = value.dtype if isinstance(value, jax.Array) else np.asarray(value).dtype
    if shape not in {(), (batch,)}:
        raise ValueError(f"{name} must be {wanted}, got shape {shape}")
    if not (jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer)):
        raise TypeError(f"{name} must be {wanted}, got {type(value).__name__} {value!r:.50}")
    if (at_hand := known(value)) is not None:
        good = np.isfinite(at_hand) & (at_hand > above) & (at_hand >= least)
        good &= (at_hand < below) & (at_hand <= most)
        if not np.all(good):
            bad = np.atleast_1d(at_hand)[~np.atleast_1d(good)][0]
            raise ValueError(f"{name}={bad} must be {_bounds(above, least, below, most)}")
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not shape):
        return value.item()  # NumPy's float64 would set the type of the result
    if not shape and not isinstance(value, jax.Array):
        return value
    value = jnp.asarray(value)
    # In a narrow type its square might overflow.
    value = value if value.dtype == jnp.float64 else value.astype(jnp.float32)
    return value[:, None] if shape else value


def _bounds(above: float, least: float, below: float, most: float) -> str:
    """What a number must be, in words.

    >>> _bounds(0, -np.inf, 1, np.inf)
    'finite, greater than 0, less than 1'
    """
    words = {"greater than": above, "at least": least, "less than": below, "at most": most}
    return ", ".join(["finite", *(f"{w} {b:g}" for w, b in words.items() if np.isfinite(b))])


def as_labels(labels: jax.typing.ArrayLike) -> jax.Array:
    """Labels as an array: integers, or probabilities in floating point.

    Raises:
      TypeError: if they are neither.
      ValueError: for an integer that would wrap to another one in 32 bits.
    """
    if not isinstance(labels, jax.Array):
        labels = np.asarray(labels)
        if np.issubdtype(labels.dtype, np.integer) and labels.size:
            furthest = max(labels.max(), labels.min(), key=abs)
            if abs(int(furthest)) >= 2**31:
                raise ValueError(f"labels must fit into 32 bits, got {furthest}")
    labels = jnp.asarray(labels)
    if not any(jnp.issubdtype(labels.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise TypeError(f"labels must be integers or probabilities, got {labels.dtype}")
    if jnp.issubdtype(labels.dtype, jnp.integer) and labels.dtype.itemsize < 4:
        labels = labels.astype(jnp.int32)  # the number of classes may not fit into fewer bits
    return labels


def hard_labels(labels: jax.Array, classes: int) -> tuple[jax.Array, jax.Array]:
    """Integer labels that are safe to look up, and a factor that is NaN for those out of range.

    An index out of range would silently give another class's value. Labels at hand are checked
    here; traced ones, which cannot be, make the loss and its gradient NaN by the factor.

    Args:
      labels: [batch], integers.
      classes: number of classes.

    Returns:
      [batch] integers in [0, classes), and [batch] 1 or NaN.

    Raises:
      ValueError: for a label at hand that is out of range.
    """
    if (at_hand := known(labels)) is not None:
        wrong = (at_hand < 0) | (at_hand >= classes)
        if np.any(wrong):
            place = int(np.argmax(wrong))
            raise ValueError(
                f"labels must be in [0, {classes}), got {at_hand[place]} at place {place}"
            )
    good = (labels >= 0) & (labels < classes)
    return jnp.where(good, labels, 0), jnp.where(good, 1.0, jnp.nan)


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
