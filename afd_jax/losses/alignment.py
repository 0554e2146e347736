"""Distances between two networks' feature maps, as losses or as measurements."""

import jax
import jax.numpy as jnp

from afd_jax.losses import checks, reduce
from afd_jax.losses.vectors import direction


def _pair(
    maps: jax.typing.ArrayLike,
    target_maps: jax.typing.ArrayLike,
    stop_target_gradient: bool,
    where: jax.typing.ArrayLike | None,
) -> tuple[jax.Array, jax.Array]:
    maps, target_maps = checks.as_floats(maps, target_maps)
    checks.require_rank("maps", maps, 2)
    checks.require_same_shape(maps=maps, target_maps=target_maps)
    maps, target_maps = checks.keep(where, maps, target_maps)
    return maps, jax.lax.stop_gradient(target_maps) if stop_target_gradient else target_maps


def l1_alignment(
    maps: jax.typing.ArrayLike,
    target_maps: jax.typing.ArrayLike,
    *,
    stop_target_gradient: bool = True,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Mean absolute difference of two feature maps, $\frac1D \sum_i |a_i - b_i|$.

    The direct alignment that AFD is compared with (Chung et al., ICML 2020). A mean over the D
    elements of one example, not a sum; the gradient at equal elements is 0.

    Args:
      maps: [batch, ...], of the network that learns, usually [batch, height, width, channels].
      target_maps: the same shape, of the network it learns from.
      stop_target_gradient: treat the target as a constant. With False, gradients reach it.
      where: [batch] bool; False gives the example loss 0 and gradient 0.

    Returns:
      [batch], at least 0, float32 (float64 for float64 input).

    Raises:
      ValueError: if shapes differ. TypeError: if an input is not floating point.

    >>> import jax.numpy as jnp
    >>> print(l1_alignment(jnp.ones((2, 3)), jnp.array([[1.0, 1.0, 1.0], [0.0, 1.0, 3.0]])))
    [0. 1.]
    """
    maps, target_maps = _pair(maps, target_maps, stop_target_gradient, where)
    return reduce.per_example_mean(reduce.absolute(maps - target_maps))


def l2_alignment(
    maps: jax.typing.ArrayLike,
    target_maps: jax.typing.ArrayLike,
    *,
    stop_target_gradient: bool = True,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Mean squared difference of two feature maps, $\frac1D \sum_i (a_i - b_i)^2$.

    No factor 1/2 and no square root. Arguments, return value and errors as in `l1_alignment`.

    >>> import jax.numpy as jnp
    >>> print(l2_alignment(jnp.zeros((1, 4)), jnp.array([[2.0, 0.0, 0.0, 2.0]])))
    [2.]
    """
    maps, target_maps = _pair(maps, target_maps, stop_target_gradient, where)
    return reduce.per_example_mean(jnp.square(maps - target_maps))


def cosine_distance(
    maps: jax.typing.ArrayLike,
    target_maps: jax.typing.ArrayLike,
    *,
    stop_target_gradient: bool = True,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""One minus the cosine of two flattened feature maps, $1 - \frac{a\cdot b}{|a||b|}$.

    0 for parallel maps, 1 for orthogonal ones, 2 for opposite ones; a map of zeros counts as
    orthogonal to everything and gets no gradient. The scale of either map, however small, does not
    matter. Arguments, return value and errors as in `l1_alignment`.

    >>> import jax.numpy as jnp
    >>> print(cosine_distance(jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 5.0]])))
    [1.]
    """
    maps, target_maps = _pair(maps, target_maps, stop_target_gradient, where)
    a, b = (direction(m.reshape(m.shape[0], -1)) for m in (maps, target_maps))
    return reduce.drop(where, 1 - jnp.sum(a * b, axis=1))


def normalized_l1_alignment(
    maps: jax.typing.ArrayLike,
    target_maps: jax.typing.ArrayLike,
    *,
    stop_target_gradient: bool = True,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""L1 distance of two feature maps of length 1, $\|\frac{a}{|a|_2} - \frac{b}{|b|_2}\|_1$.

    The feature loss of FEED (Park and Kwak, ECAI 2020) and, between factors and as a mean, of
    factor transfer (Kim, Park, Kwak, NeurIPS 2018). A sum over the D elements of one example; the
    mean is this divided by D. The scale of either map does not matter; the loss is 0 for parallel
    maps only and at most $2\sqrt D$. A map of zeros stays zero. Arguments, return value and errors
    as in `l1_alignment`.

    >>> import jax.numpy as jnp
    >>> print(f"{normalized_l1_alignment(jnp.array([[3.0, 4.0]]), jnp.array([[0.0, 2.0]]))[0]:.4f}")
    0.8000
    """
    maps, target_maps = _pair(maps, target_maps, stop_target_gradient, where)
    a, b = (direction(m.reshape(m.shape[0], -1)) for m in (maps, target_maps))
    return reduce.drop(where, jnp.sum(reduce.absolute(a - b), axis=1))


def attention_alignment(
    maps: jax.typing.ArrayLike,
    target_maps: jax.typing.ArrayLike,
    *,
    stop_target_gradient: bool = True,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Mean squared difference of two attention maps of length 1.

    An attention map is the mean over channels of the squared activations, at each position
    (Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, and their code); its
    channels may differ between the two.

    Args:
      maps: [batch, height, width, channels], of the network that learns.
      target_maps: [batch, height, width, any channels], of the network it learns from.
      stop_target_gradient: treat the target as a constant. With False, gradients reach it.
      where: [batch] bool; False gives the example loss 0 and gradient 0.

    Returns:
      [batch], at least 0: a mean over positions; float32 (float64 for float64 input).

    Raises:
      ValueError: if batch, height or width differ. TypeError: if an input is not floating point.

    >>> import jax.numpy as jnp
    >>> one, other = jnp.array([[[[1.0], [0.0]]]]), jnp.array([[[[0.0, 0.0], [5.0, 1.0]]]])
    >>> print(attention_alignment(one, other))
    [1.]
    """
    maps, target_maps = checks.as_floats(maps, target_maps)
    checks.require_rank("maps", maps, 4)
    checks.require_rank("target_maps", target_maps, 4)
    maps, target_maps = checks.keep(where, maps, target_maps)
    a, b = (jnp.mean(jnp.square(_scaled(m)), axis=-1) for m in (maps, target_maps))
    a, b = _pair(a, b, stop_target_gradient, None)
    a, b = (direction(m.reshape(m.shape[0], -1)) for m in (a, b))
    return reduce.drop(where, jnp.mean(jnp.square(a - b), axis=1))


def pyramid_alignment(
    maps: jax.typing.ArrayLike,
    target_maps: jax.typing.ArrayLike,
    *,
    stop_target_gradient: bool = True,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Mean squared difference of two maps at full size and averaged to 4x4, 2x2 and 1x1.

    The hierarchical context loss of ReviewKD (Chen et al., CVPR 2021, by their code): the sizes'
    weights are 1, 1/2, 1/4, 1/8 over their sum; sizes that are not below the map's height are left
    out, and the next one has the next weight. Where a size does not divide the map's, bins overlap.

    Args:
      maps: [batch, height, width, channels], of the network that learns.
      target_maps: the same shape, of the network it learns from.
      stop_target_gradient: treat the target as a constant. With False, gradients reach it.
      where: [batch] bool; False gives the example loss 0 and gradient 0.

    Returns:
      [batch], at least 0, float32 (float64 for float64 input).

    Raises:
      ValueError: if shapes differ. TypeError: if an input is not floating point.

    >>> import jax.numpy as jnp
    >>> a = jnp.array([[[[1.0], [-1.0]], [[1.0], [-1.0]]]])
    >>> print(pyramid_alignment(a, jnp.zeros_like(a)).round(4))
    [0.6667]
    """
    maps, target_maps = _pair(maps, target_maps, stop_target_gradient, where)
    checks.require_rank("maps", maps, 4)
    apart, weight, total = reduce.per_example_mean(jnp.square(maps - target_maps)), 1.0, 1.0
    for size in (4, 2, 1):
        if size < maps.shape[1]:
            a, b = (_averaged(m, size) for m in (maps, target_maps))
            weight /= 2
            apart += weight * reduce.per_example_mean(jnp.square(a - b))
            total += weight
    return apart / total


def _averaged(maps: jax.Array, size: int) -> jax.Array:
    """Averaged to `size` bins along height and width."""
    for axis in (1, 2):
        length = maps.shape[axis]
        bins = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
        means = [jnp.mean(jax.lax.slice_in_dim(maps, *ends, axis=axis), axis=axis) for ends in bins]
        maps = jnp.stack(means, axis=axis)
    return maps


def _scaled(maps: jax.Array) -> jax.Array:
    """Each example divided by its largest element, so that squares neither overflow nor vanish."""
    axes = tuple(range(1, maps.ndim))
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(maps), axis=axes, keepdims=True))
    return maps / jnp.where(largest == 0, 1, largest)
