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
# Numbers of Pillow: left to right, and the resampling; of EXIF: which way is up.
_FLIP: Any = 0
_BILINEAR = 2
_ORIENTATION = 0x0112
_GREY = ("1", "L", "LA")

Box = tuple[float, float, float, float]


def augmented(image: "Image.Image", size: int, draw: np.random.Generator) -> "Image.Image":
    """Crops at random, resizes to [size, size] and flips half of the time."""
    cut = resized(image, random_box(*image.size, draw), size)
    return cut.transpose(_FLIP) if draw.random() < 0.5 else cut


def central(image: "Image.Image", size: int, margin: float = _TEST_MARGIN) -> "Image.Image":
    """What resizing the shorter side to `margin` times `size` and cutting out the centre gives."""
    width, height = image.size
    side = min(width, height) * size / round(size * margin)
    left, top = (width - side) / 2, (height - side) / 2
    return resized(image, (left, top, left + side, top + side), size)


def resized(image: "Image.Image", box: Box, size: int) -> "Image.Image":
    """Resizes what lies in the box (left, top, right, bottom) to [size, size], grey or RGB.

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
    return plain(image).resize((size, size), _BILINEAR, box=box)


def upright(image: "Image.Image") -> "Image.Image":
    """Turns a photograph as its EXIF data say, if they can be read; does not decode others."""
    from PIL import ImageOps

    try:
        turned = image.getexif().get(_ORIENTATION, 1) != 1
    except Exception:  # parsers of EXIF data have many
        return image
    return ImageOps.exif_transpose(image) if turned else image


def plain(image: "Image.Image") -> "Image.Image":
    """The image as 8-bit grey ("L") or RGB.

    Of 16 bits the upper 8 are kept; what is transparent is laid on white; images with a palette
    are RGB.

    Raises:
      ValueError: as in `require_bits`.
    """
    from PIL import Image

    require_bits(image)
    if image.mode.startswith("I"):
        return Image.fromarray((np.clip(np.asarray(image), 0, 2**16 - 1) >> 8).astype(np.uint8))
    mode = "RGB" if has_colours(image) else "L"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def require_bits(image: "Image.Image") -> None:
    """Raises ValueError for pixels that have no known range: floating-point numbers, 32 bits."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    if image.mode == "I" and image.format != "PPM":  # whose 16 bits Pillow calls so
        raise ValueError("its pixels are 32-bit numbers; save it with 8 or 16 bits")


def has_colours(image: "Image.Image") -> bool:
    """Whether `plain` makes RGB of it."""
    return image.mode not in _GREY and not image.mode.startswith("I")


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
