"""From elements to one value per example, and from examples to a mean."""

from typing import Any

import jax
import jax.numpy as jnp


def drop(where: jax.typing.ArrayLike | None, values: jax.Array) -> jax.Array:
    """Sets the value of masked examples to zero."""
    return values if where is None else jnp.where(jnp.asarray(where), values, 0)


def divergence(log_probs: jax.Array, target_log_probs: jax.Array) -> jax.Array:
    """KL(target || own) over the last axis, from log-probabilities.

    A class that the target leaves out (-inf) has no share, and none in the gradient; nor has one
    that the network leaves out, if its probability underflows.
    """
    target = jnp.exp(target_log_probs)
    none = (target_log_probs == -jnp.inf) | ((log_probs == -jnp.inf) & (target == 0))
    apart = jnp.where(none, 0, target_log_probs) - jnp.where(none, 0, log_probs)
    return jnp.sum(target * apart, axis=-1)


def squared(temperature: Any) -> Any:
    """T², of a number or, as `checks.number` gives one per example, of [batch, 1]: [batch]."""
    return jnp.squeeze(temperature, -1) ** 2 if jnp.ndim(temperature) else temperature**2


def softened(logits: jax.Array, temperature: Any) -> jax.Array:
    """Logits over T; a class that is left out (-inf) stays so, and T gets no gradient from it."""
    there = logits != -jnp.inf
    return jnp.where(there, jnp.where(there, logits, 0) / temperature, -jnp.inf)


def centred(rows: jax.Array, where: jax.Array | None = None) -> jax.Array:
    """Rows less their means, over the elements that count; 0 for the others.

    A row of equal values becomes exact zeros without a gradient, whatever its mean rounds to.
    """
    there = jnp.ones(rows.shape, bool) if where is None else where
    highest = jnp.max(rows, axis=-1, keepdims=True, where=there, initial=-jnp.inf)
    lowest = jnp.min(rows, axis=-1, keepdims=True, where=there, initial=jnp.inf)
    apart = rows - jnp.mean(rows, axis=-1, keepdims=True, where=there)
    return jnp.where(there & (highest != lowest), apart, 0)


def absolute(values: jax.Array) -> jax.Array:
    """|x|, whose gradient at 0 is 0, as in PyTorch; that of `jnp.abs` is 1 there."""
    return jnp.where(values == 0, 0, jnp.abs(values))


def per_example_mean(values: jax.Array) -> jax.Array:
    """Averages over all axes but the first: [batch, ...] to [batch]."""
    return jnp.mean(values.reshape(values.shape[0], -1), axis=1)


def mean(values: jax.Array, where: jax.typing.ArrayLike | None = None) -> jax.Array:
    """Averages per-example losses over the examples that count.

    Args:
      values: [batch], as every loss of this package returns; half precision is added up in
        float32.
      where: [batch] bool, True for the examples that count; all of them if None. An all-False
        mask gives 0.

    Returns:
      A scalar.

    Raises:
      ValueError: if there are no values, or `where` has another shape.
      TypeError: if `where` is not boolean.

    >>> import jax.numpy as jnp
    >>> print(mean(jnp.array([1.0, 3.0, 8.0]), where=jnp.array([True, True, False])))
    2.0
    """
    if not values.size:
        raise ValueError(f"values must not be empty, got shape {values.shape}")
    if values.dtype in (jnp.float16, jnp.bfloat16):
        values = values.astype(jnp.float32)
    if where is None:
        return jnp.mean(values)
    mask = jnp.asarray(where)
    if mask.dtype != jnp.bool_:
        raise TypeError(f"where must be boolean, got {mask.dtype}")
    if mask.shape != values.shape:
        raise ValueError(f"where needs shape {values.shape}, as the values, got {mask.shape}")
    count = jnp.maximum(jnp.sum(mask.astype(values.dtype)), 1)
    return jnp.sum(jnp.where(mask, values, 0)) / count
