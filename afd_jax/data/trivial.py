"""TrivialAugment: one operation of random strength for each image.

Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", ICCV 2021,
with its wide space: 14 operations, each as often as any other, at one of 31 strengths. Images are
turned about their centre, sheared about the upper left corner, and moved, with linear interpolation
(Pillow and torchvision take the nearest pixel); what comes in from outside is black. The operations
on colours are Pillow's, but for fractions, which it cuts off and we round.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Operation = Callable[[jax.Array, jax.Array], jax.Array]
"""(image [height, width, channels] of 0 to 255, strength in [-1, 1]) to an image, not rounded."""

STRENGTHS = 31


def trivially_augmented(rng: jax.Array, image: jax.Array) -> jax.Array:
    """The image [height, width, channels] uint8 after one operation."""
    operation_rng, strength_rng, sign_rng = jax.random.split(rng, 3)
    operation = jax.random.randint(operation_rng, (), 0, len(OPERATIONS))
    strength = jax.random.randint(strength_rng, (), 0, STRENGTHS) / (STRENGTHS - 1)
    sign = jax.random.rademacher(sign_rng, (), jnp.float32)
    return applied(operation, image, sign * strength)


def applied(operation: jax.Array | int, image: jax.Array, strength: jax.Array) -> jax.Array:
    """The image after the operation of that number, uint8; operations are in `OPERATIONS`."""
    # All that moves pixels is one interpolation: under vmap every branch of a switch is computed.
    matrices = jnp.stack([matrix(strength, *image.shape[:2]) for matrix in MOVES.values()])
    moving = operation < len(MOVES)
    matrix = matrices[jnp.where(moving, operation, 0)]
    floats = image.astype(jnp.float32)
    moved = _moved(floats, matrix)
    colour = jnp.where(moving, 0, operation - len(MOVES))
    coloured = jax.lax.switch(colour, [*COLOURS.values()], floats, strength)
    result = jnp.where(moving, moved, coloured)
    return jnp.clip(_rounded(result), 0, 255).astype(jnp.uint8)


# Halves are frequent, and so are colours at the threshold. Two programs need not agree on the last
# bit of such a number, and a pixel must not depend on the number of devices.
_SLACK = 2**-11


def _rounded(values: jax.Array) -> jax.Array:
    """The nearest whole numbers; halves go up."""
    return jnp.floor(values + (0.5 + _SLACK))


# Where a pixel comes from: rows for y and x, measured from the centre, to multiply (y, x, 1) with.
def _rows(y: list[jax.Array | float], x: list[jax.Array | float]) -> jax.Array:
    return jnp.array([y, x], jnp.float32)


def _turn(strength: jax.Array, height: int, width: int) -> jax.Array:
    angle = jnp.radians(135 * strength)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _rows([cos, -sin, 0.0], [sin, cos, 0.0])


MOVES: dict[str, Callable[[jax.Array, int, int], jax.Array]] = {
    "shear_x": lambda s, h, w: _rows([1.0, 0.0, 0.0], [0.99 * s, 1.0, 0.99 * s * h / 2]),
    "shear_y": lambda s, h, w: _rows([1.0, 0.99 * s, 0.99 * s * w / 2], [0.0, 1.0, 0.0]),
    "translate_x": lambda s, h, w: _rows([1.0, 0.0, 0.0], [0.0, 1.0, 32 * s]),
    "translate_y": lambda s, h, w: _rows([1.0, 0.0, 32 * s], [0.0, 1.0, 0.0]),
    "rotate": _turn,
}
"""Strength, height and width to a matrix: shears by up to 0.99, moves by 32 pixels, turns by 135
degrees."""


def _moved(image: jax.Array, matrix: jax.Array) -> jax.Array:
    height, width, _ = image.shape
    centre = (height - 1) / 2, (width - 1) / 2
    y, x = jnp.meshgrid(
        jnp.arange(height) - centre[0], jnp.arange(width) - centre[1], indexing="ij"
    )
    places = [row[0] * y + row[1] * x + row[2] + c for row, c in zip(matrix, centre, strict=True)]

    def channel(values: jax.Array) -> jax.Array:
        return jax.scipy.ndimage.map_coordinates(values, places, order=1, mode="constant", cval=0)

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)


def _blended(image: jax.Array, other: jax.Array, strength: jax.Array) -> jax.Array:
    """Blends: `other` at strength -1 (nearly), the image at 0, further away from `other` above."""
    return jnp.clip(other + (1 + 0.99 * strength) * (image - other), 0, 255)


def _grey(image: jax.Array) -> jax.Array:
    """The luma of colours; the mean of other channels. [height, width, 1]."""
    weights = jnp.array([0.299, 0.587, 0.114]) if image.shape[-1] == 3 else None
    grey = jnp.average(image, axis=-1, weights=weights, keepdims=True)
    return _rounded(grey)


def _contrast(image: jax.Array, strength: jax.Array) -> jax.Array:
    return _blended(image, _rounded(jnp.mean(_grey(image))), strength)


def _sharpness(image: jax.Array, strength: jax.Array) -> jax.Array:
    height, width, _ = image.shape
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)))
    around = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3))
    smooth = _rounded((around + 4 * image) / 13)
    y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]
    inner = (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
    return _blended(image, jnp.where(inner, smooth, image), strength)


def _posterized(image: jax.Array, strength: jax.Array) -> jax.Array:
    step = 2.0 ** jnp.round(6 * jnp.abs(strength))  # 8 to 2 bits are left
    return jnp.floor(image / step) * step


def _solarized(image: jax.Array, strength: jax.Array) -> jax.Array:
    turned = (image + _SLACK >= 255 * (1 - jnp.abs(strength))) & (strength != 0)
    return jnp.where(turned, 255 - image, image)


def _auto_contrast(image: jax.Array, _: jax.Array) -> jax.Array:
    low, high = (f(image, axis=(0, 1), keepdims=True) for f in (jnp.min, jnp.max))
    return jnp.where(high > low, (image - low) * 255 / jnp.maximum(high - low, 1), image)


def _equalized(image: jax.Array, _: jax.Array) -> jax.Array:
    def channel(values: jax.Array) -> jax.Array:
        whole = values.astype(jnp.int32)
        counts = jnp.zeros(256, jnp.int32).at[whole.ravel()].add(1)
        last = counts[jnp.max(whole)]
        step = (whole.size - last) // 255
        before = jnp.cumsum(counts) - counts
        table = jnp.minimum((before + step // 2) // jnp.maximum(step, 1), 255)
        return jnp.where(step > 0, table[whole], whole).astype(jnp.float32)

    return jax.vmap(channel, in_axes=-1, out_axes=-1)(image)


COLOURS: dict[str, Operation] = {
    "identity": lambda image, _: image,
    "brightness": lambda image, s: _blended(image, jnp.zeros_like(image), s),
    "color": lambda image, s: _blended(image, _grey(image), s),
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterized,
    "solarize": _solarized,
    "auto_contrast": _auto_contrast,
    "equalize": _equalized,
}

OPERATIONS = (*MOVES, *COLOURS)
"""Names of all operations, in the order of their numbers."""
