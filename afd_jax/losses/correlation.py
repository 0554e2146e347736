"""How far two networks' predictions are from being linear functions of each other."""

import jax
import jax.numpy as jnp

from afd_jax.losses import checks, reduce


def correlation_distance(
    values: jax.typing.ArrayLike,
    target_values: jax.typing.ArrayLike,
    *,
    eps: float = 1e-8,
    stop_target_gradient: bool = True,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""One minus Pearson's correlation of two rows, $1 - \frac{a\cdot b}{|a||b| + \epsilon}$.

    a and b are the rows less their means. 0 for rows that are positive affine functions of each
    other, 2 for negative ones; a constant row counts as uncorrelated with everything and gets no
    gradient. DIST (Huang, You, Wang, Qian, Xu, "Knowledge Distillation from A Stronger Teacher",
    NeurIPS 2022) takes it of probabilities: of each example over the classes, and, transposed, of
    each class over the batch.

    Args:
      values: [rows, values], of the network that learns.
      target_values: the same shape, of the network it learns from.
      eps: added to the product of the norms, above 0; 1e-8 in the authors' code.
      stop_target_gradient: treat the target as a constant. With False, gradients reach it.
      where: [rows] bool; False gives the row loss 0 and gradient 0.

    Returns:
      [rows], float32 (float64 for float64 input).

    Raises:
      ValueError: if shapes differ, there are no rows, or eps is not positive.
      TypeError: if an input is not floating point.

    >>> a, b = jnp.array([[1.0, 2.0, 4.0]] * 2), jnp.array([[3.0, 5.0, 9.0], [0.0, -1.0, -3.0]])
    >>> print(correlation_distance(a, b).round(4) + 0)
    [0. 2.]
    """
    values, target_values = checks.as_floats(values, target_values)
    checks.require_rows("values", values)
    checks.require_same_shape(values=values, target_values=target_values)
    eps = checks.number("eps", eps, above=0)
    values, target_values = checks.keep(where, values, target_values)
    if stop_target_gradient:
        target_values = jax.lax.stop_gradient(target_values)
    a, b = (reduce.centred(x) for x in (values, target_values))
    correlation = jnp.sum(a * b, axis=-1) / (_norm(a) * _norm(b) + eps)
    return reduce.drop(where, 1 - correlation)


def _norm(rows: jax.Array) -> jax.Array:
    """Of each row; its gradient is 0 for a row of zeros."""
    square = jnp.sum(jnp.square(rows), axis=-1)
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))
