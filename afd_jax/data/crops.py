"""Cutting and resizing images as they are decoded, on the host."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # Pillow belongs to the extra "train"
    from PIL import Image

_AREA = (0.08, 1.0)
_RATIO = (3 / 4, 4 / 3)
_TRIES = 10
_TEST_MARGIN = 256 / 224
# Numbers of Pillow: left to right, and the resampling.
_FLIP: Any = 0
_BILINEAR = 2

Box = tuple[float, float, float, float]


def augmented(image: "Image.Image", size: int, draw: np.random.Generator) -> "Image.Image":
    """Crops at random, resizes to [size, size] and flips half of the time."""
    cut = resized(image, random_box(*image.size, draw), size)
    return cut.transpose(_FLIP) if draw.random() < 0.5 else cut


def central(image: "Image.Image", size: int) -> "Image.Image":
    """What resizing the shorter side to 256/224 of `size` and cutting out the centre gives."""
    width, height = image.size
    side = min(width, height) * size / round(size * _TEST_MARGIN)
    left, top = (width - side) / 2, (height - side) / 2
    return resized(image, (left, top, left + side, top + side), size)


def resized(image: "Image.Image", box: Box, size: int) -> "Image.Image":
    """Resizes what lies in the box (left, top, right, bottom) to [size, size] RGB.

    A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that is no smaller than `size`.
    """
    width, height = image.size
    shrink = int(min(box[2] - box[0], box[3] - box[1])) // size
    if shrink > 1:
        part = min(8, 1 << shrink.bit_length() - 1)
        drafted = image.draft("RGB", (width // part, height // part))
        if drafted:
            scale = drafted[1][2] / width
            box = (box[0] * scale, box[1] * scale, box[2] * scale, box[3] * scale)
    return image.convert("RGB").resize((size, size), _BILINEAR, box=box)


def random_box(width: int, height: int, draw: np.random.Generator) -> Box:
    """A part of 8 to 100 % of the area, of a ratio of 3/4 to 4/3, in pixels."""
    for _ in range(_TRIES):
        area = width * height * draw.uniform(*_AREA)
        ratio = math.exp(draw.uniform(math.log(_RATIO[0]), math.log(_RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(draw.integers(width - w + 1)), int(draw.integers(height - h + 1))
            return left, top, left + w, top + h
    # Long and narrow: the largest piece of an allowed ratio, from the middle.
    w, h = min(width, round(height * _RATIO[1])), min(height, round(width / _RATIO[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
