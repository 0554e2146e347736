"""A convolution in the forms that XLA:CPU has fast code for, and so are its gradients.

The usual gradients come with swapped dimensions. XLA:CPU puts them into its layout only in the
outermost program; inside a scan over layers they fall back to plain loops, 60 times slower.
Where there are few features, some pixels are computed together, in half the time.
On other devices the compiler chooses layouts itself, and the usual convolution stays.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_TOGETHER = ((4, 8), (2, 24))  # (pixels, for so many features at most)


def conv_general_dilated(
    images: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Any,
    *,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
) -> jax.Array:
    """Takes the place of `jax.lax.conv_general_dilated` in `flax.linen.Conv`, with equal values.

    Args:
      images: [batch, h, w, channels].
      kernel: [kernel h, kernel w, channels, features].
      strides: of the two spatial dimensions.
      padding: ((low, high), (low, high)); what else there is, is left to `jax.lax`.
      lhs_dilation: likewise, unless 1.
      rhs_dilation: likewise, unless 1.
      dimension_numbers: those of `flax.linen.Conv`.
      feature_group_count: likewise, unless 1.
      precision: likewise, unless None.
    """
    plain = (
        kernel.ndim == 4
        and {*(lhs_dilation or ()), *(rhs_dilation or ()), feature_group_count} == {1}
        and precision is None
        and not isinstance(padding, str)
    )
    if plain:
        pads = tuple((low, high) for low, high in padding)
        return _convolve(images, kernel, tuple(strides), pads)
    return lax.conv_general_dilated(
        images,
        kernel,
        strides,
        padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        precision=precision,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(images: Any, kernel: Any, strides: Any, pads: Any) -> jax.Array:
    return _strided(images, kernel, strides, pads)


def _forward(images: Any, kernel: Any, strides: Any, pads: Any) -> tuple[jax.Array, Any]:
    return _convolve(images, kernel, strides, pads), (images, kernel)


def _backward(strides: Any, pads: Any, kept: Any, gradient: jax.Array) -> tuple[Any, Any]:
    images, kernel = kept
    sizes, sides = images.shape[1:3], kernel.shape[:2]
    # Pixels at the end that no window reaches, because the stride stops short of them.
    unread = [
        (size + low + high - side) % stride
        for size, side, stride, (low, high) in zip(sizes, sides, strides, pads, strict=True)
    ]
    spread, dilation = gradient, strides
    if math.prod(gradient.shape[1:3]) < math.prod(sides):
        # XLA would let the operands change places, and has no fast code for that.
        between = ((0, 0, 0), *((0, 0, stride - 1) for stride in strides), (0, 0, 0))
        spread, dilation = lax.pad(gradient, jnp.zeros((), gradient.dtype), between), (1, 1)
    image_gradient = _strided(
        spread,
        jnp.flip(kernel, (0, 1)).transpose(0, 1, 3, 2),
        (1, 1),
        [
            (side - 1 - low, side - 1 - high + rest)
            for side, (low, high), rest in zip(sides, pads, unread, strict=True)
        ],
        dilation,
    )
    # Channels take the place of the batch and the batch that of channels: a window as large as the
    # gradient moves over the image, one position for each weight of the kernel.
    kernel_gradient = lax.conv_general_dilated(
        images.transpose(3, 1, 2, 0),
        gradient.transpose(1, 2, 0, 3),
        (1, 1),
        [(low, high - rest) for (low, high), rest in zip(pads, unread, strict=True)],
        rhs_dilation=strides,
        dimension_numbers=_LAYOUT,
    )
    return image_gradient, kernel_gradient.transpose(1, 2, 0, 3)


_convolve.defvjp(_forward, _backward)


def _strided(images: Any, kernel: Any, strides: Any, pads: Any, dilation: Any = (1, 1)) -> Any:
    """A convolution; with few features, of some neighbouring pixels as features of one.

    As a product of matrices it has a column for each feature, and few columns are slow. The window
    grows by a pixel for each pixel more, and what a pixel does not see of it weighs zero.
    """
    _, side, _, features = kernel.shape
    width = (images.shape[2] - 1) * dilation[1] + 1 + sum(pads[1]) - (side - 1)
    fitting = (n for n, most in _TOGETHER if features <= most and width % n == 0)
    pixels = next(fitting, 1) if strides[1] == 1 < side else 1
    if pixels > 1:
        shifts = [((0, 0), (n, pixels - 1 - n), (0, 0), (0, 0)) for n in range(pixels)]
        kernel = jnp.concatenate([jnp.pad(kernel, shift) for shift in shifts], axis=-1)
    result = lax.conv_general_dilated(
        images,
        kernel,
        (strides[0], strides[1] * pixels),
        pads,
        lhs_dilation=dilation,
        dimension_numbers=_LAYOUT,
    )
    n, h, w, _ = result.shape
    return result.reshape(n, h, w * pixels, features) if pixels > 1 else result
