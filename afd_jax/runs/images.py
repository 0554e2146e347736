"""Images that people give to a trained network, checked and brought to one scale."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from afd_jax.errors import SettingError

RANGES = ((0, 1), (0, 255))


def as_pixels(
    images: Any, image_shape: Sequence[int] | None, images_range: tuple[float, float] | None
) -> jax.Array:
    """Images [batch, height, width, channels] in steps of 0 to 255: uint8 as they are, or float32.

    Args:
      images: uint8, or floats with `images_range`.
      image_shape: [height, width, channels] that the network was trained with; None: not checked.
      images_range: what black and white are in float images, (0, 1) or (0, 255).

    Raises:
      SettingError: for another type, shape or range. Under `jax.jit` values are not looked at.
    """
    if not isinstance(images, jax.Array | np.ndarray):
        images = np.asarray(images)
    _require_shape(images.shape, image_shape)
    if images.dtype == np.uint8:
        if images_range not in (None, (0, 255)):
            raise SettingError("images_range", images_range, "uint8 images are 0 to 255; leave out")
        return jnp.asarray(images)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        remedy = "give uint8, as they come from the data, or floats with images_range=(0, 1)"
        raise SettingError("images", images.dtype.name, remedy)
    if images_range is None:
        remedy = "give uint8, as they come from the data, or say images_range=(0, 1) or (0, 255); "
        remedy += "do not normalise them, the network does"
        raise SettingError("images", images.dtype.name, remedy)
    if tuple(images_range) not in RANGES:
        raise SettingError("images_range", images_range, "must be (0, 1) or (0, 255)")
    low, high = images_range
    if not isinstance(images, jax.core.Tracer) and images.size:
        least, most = float(images.min()), float(images.max())
        if not (low <= least and most <= high):
            remedy = f"must lie in images_range={low, high}; do not normalise, the network does"
            raise SettingError("images", f"{least:g} to {most:g}", remedy)
    return jnp.asarray(images, jnp.float32) * (255 / high)


def _require_shape(given: Sequence[int], wanted: Sequence[int] | None) -> None:
    if wanted is None:
        return
    height, width, channels = wanted
    given = tuple(given)
    remedy = f"must be [batch, {height}, {width}, {channels}]"
    if given == (height, width, channels):
        raise SettingError(
            "images", given, f"is one image; add a batch axis (images[None]): {remedy}"
        )
    if len(given) == 4 and given[1:] == (height, width, channels):
        return
    if len(given) == 4 and given[1:] == (channels, height, width):
        remedy += "; these have their channels first, turn them: images.transpose(0, 2, 3, 1)"
    elif len(given) == 4:
        names = ("height", "width", "channels")
        wrong = [n for n, g, w in zip(names, given[1:], wanted, strict=True) if g != w]
        remedy += f", as in training; {' and '.join(wrong)} differ"
    raise SettingError("images", given, remedy)
