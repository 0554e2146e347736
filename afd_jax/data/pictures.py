"""Images without labels: the JPEG and PNG files of a folder, as a trained network takes them."""

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from afd_jax.data.batches import NumpyBatch
from afd_jax.data.crops import central, plain, upright
from afd_jax.data.extra import need
from afd_jax.errors import SettingError, first_line

_SUFFIXES = (".jpeg", ".jpg", ".png")
_MODES = {1: "L", 3: "RGB"}


def picture_files(folder: str | pathlib.Path) -> list[pathlib.Path]:
    """The images in a folder and those below it, in order of their paths.

    Raises:
      SettingError: if there is no such folder, or no image in it.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise SettingError("images", str(folder), "no such folder")
    files = [
        path
        for path in root.rglob("*")
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")
    ]
    if not files:
        raise SettingError("images", str(folder), f"holds no {', '.join(_SUFFIXES)} files")
    return sorted(files)


def picture_batches(
    files: Sequence[pathlib.Path],
    batch_size: int,
    image_shape: tuple[int, int, int],
    *,
    streamed: bool,
) -> Iterator[NumpyBatch]:
    """Yields every image once; the last batch is padded, and "mask" is False for padding.

    Args:
      files: as from `picture_files`.
      batch_size: images in a batch.
      image_shape: (height, width, channels) that come out. Images of another size are cut around
        their centre and resized.
      streamed: cut them as the test images of a streamed set.

    Yields:
      {"image" uint8, "mask"}.

    Raises:
      SettingError: for a file that cannot be read, or for images of neither 1 nor 3 channels.
    """
    for first in range(0, len(files), batch_size):
        images = np.zeros((batch_size, *image_shape), np.uint8)
        own = files[first : first + batch_size]
        for place, file in enumerate(own):
            images[place] = read_picture(file, image_shape, streamed=streamed)
        yield {"image": images, "mask": np.arange(batch_size) < len(own)}


def read_picture(
    file: pathlib.Path, image_shape: tuple[int, int, int], *, streamed: bool
) -> np.ndarray:
    """One image [height, width, channels] uint8; arguments and errors as `picture_batches`."""
    height, width, channels = image_shape
    if channels not in _MODES:
        remedy = f"the networks take images of {channels} channels; files have 1 or 3"
        raise SettingError("images", str(file), remedy)
    pillow = need("PIL.Image", "images", str(file))
    fit = need("PIL.ImageOps", "images", str(file)).fit
    try:
        with pillow.open(file) as opened:
            image = upright(opened)
            if streamed:
                image = central(image, height)
            elif width == height:
                image = central(image, height, margin=1)
            elif image.size != (width, height):
                image = fit(plain(image), (width, height), pillow.Resampling.BILINEAR)
            image = plain(image).convert(_MODES[channels])
            return np.asarray(image).reshape(image_shape)
    except Exception as error:  # each decoder has its own
        remedy = f"cannot be read ({first_line(error)})"
        raise SettingError("images", str(file), remedy) from error
