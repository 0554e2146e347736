"""Similarity of what two networks make of the same examples: of a whole batch, not per example."""

import jax
import jax.numpy as jnp

from afd_jax.losses import checks


def linear_hsic(
    maps: jax.typing.ArrayLike,
    other_maps: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Unbiased estimate of the Hilbert-Schmidt independence criterion with linear kernels.

    With the Gram matrices K and L of the n flattened examples, their diagonals set to zero,

    $$\frac{1}{n(n-3)} \Big[ \mathrm{tr}(KL) + \frac{1^\top K 1\; 1^\top L 1}{(n-1)(n-2)}
      - \frac{2}{n-2} 1^\top K L 1 \Big]$$

    (Song et al., "Feature Selection via Dependence Maximization", JMLR 2012, eq. 4). Being
    unbiased, it may be averaged over batches, which `linear_cka` may not.

    Args:
      maps: [batch, ...], of one network, usually [batch, height, width, channels].
      other_maps: [batch, ...], of the other; all but the batch may differ.
      where: [batch] bool; False leaves the example out.

    Returns:
      [], in the product of the squared units of both maps; 0 for fewer than 4 examples. float32
      (float64 for float64 input).

    Raises:
      ValueError: if the batches differ. TypeError: if an input is not floating point.

    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (64, 1))
    >>> print(f"{linear_hsic(x, 3 * x) / linear_hsic(x, x):.4f}")
    9.0000
    """
    maps, other_maps = checks.as_floats(maps, other_maps)
    flat = []
    for name, own in (("maps", maps), ("other_maps", other_maps)):
        checks.require_rank(name, own, 2)
        (own,) = checks.keep(where, own)
        flat.append(own.reshape(own.shape[0], -1))
    checks.require_same_shape(maps=flat[0][:, 0], other_maps=flat[1][:, 0])
    kept = jnp.ones(len(flat[0]), bool) if where is None else jnp.asarray(where)
    n = jnp.maximum(jnp.sum(kept), 4).astype(flat[0].dtype)
    pairs = kept[:, None] & kept[None] & ~jnp.eye(len(kept), dtype=bool)
    # The estimate does not see a shift. Without the means sums lose fewer digits, and without a
    # kept example before them, maps that are all the same become zeros, not rounding errors.
    shifted = [jnp.where(kept[:, None], x - x[jnp.argmax(kept)][None], 0) for x in flat]
    centred = [x - jnp.sum(x, 0, keepdims=True) / n for x in shifted]
    own, other = (jnp.where(pairs, x @ x.T, 0) for x in centred)
    own_rows, other_rows = jnp.sum(own, 1), jnp.sum(other, 1)
    trace, cross = jnp.sum(own * other), jnp.sum(own_rows * other_rows)
    totals = jnp.sum(own_rows) * jnp.sum(other_rows)
    value = trace + totals / ((n - 1) * (n - 2)) - 2 * cross / (n - 2)
    return jnp.where(jnp.sum(kept) > 3, value / (n * (n - 3)), 0)


def linear_cka(
    maps: jax.typing.ArrayLike,
    other_maps: jax.typing.ArrayLike,
    *,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Centred kernel alignment with linear kernels, $\frac{H(a,b)}{\sqrt{H(a,a)\,H(b,b)}}$.

    Kornblith et al., "Similarity of Neural Network Representations Revisited", ICML 2019, with the
    unbiased `linear_hsic` for H (Nguyen et al., ICLR 2021, eq. 4). 1 for maps that are equal up to
    rotation, scale and shift, about 0 for independent ones, of which it may be slightly negative.
    Arguments and errors as in `linear_hsic`.

    Returns:
      [], 0 if one of the two maps is the same for all examples; NaN if a kept one is not finite.

    >>> import jax
    >>> x = jax.random.normal(jax.random.key(0), (32, 8))
    >>> print(f"{linear_cka(x, 3 * x[:, ::-1] + 1):.4f}")
    1.0000
    """
    between = linear_hsic(maps, other_maps, where=where)  # first, as it names the two in errors
    own = linear_hsic(maps, maps, where=where)
    other = linear_hsic(other_maps, other_maps, where=where)
    return cka_ratio(between, own, other)


def cka_ratio(between: jax.Array, own: jax.Array, other: jax.Array) -> jax.Array:
    """CKA from three values of HSIC, or from their sums over batches.

    Args:
      between: of both maps, of any shape.
      own: of the first with itself, likewise.
      other: of the second with itself, likewise.

    Returns:
      Of their shape; 0 where `own` or `other` is not positive, NaN where one is NaN.

    Raises:
      ValueError: if shapes differ or are empty. TypeError: if an input is not floating point.
    """
    between, own, other = checks.as_floats(between, own, other)
    checks.require_rank("between", between, 0)
    checks.require_same_shape(between=between, own=own, other=other)
    there = (own > 0) & (other > 0)  # their product might over- or underflow
    length = jnp.sqrt(jnp.where(there, own, 1)) * jnp.sqrt(jnp.where(there, other, 1))
    nothing = jnp.where(jnp.isnan(own + other), jnp.nan, 0)
    return jnp.where(there, between / length, nothing)
