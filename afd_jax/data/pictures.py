"""Images without labels: the files of a folder, as a trained network takes them."""

import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from afd_jax.data.batches import NumpyBatch
from afd_jax.data.crops import central, plain, upright
from afd_jax.data.extra import need
from afd_jax.data.folder import SUFFIXES, images_below
from afd_jax.errors import SettingError, UnreadableError, first_line

_MODES = {1: "L", 3: "RGB"}


def picture_files(folder: str | pathlib.Path) -> list[pathlib.Path]:
    """The images in a folder and those below it, as for training, in order of their paths.

    Raises:
      SettingError: if there is no such folder, no image in it, or a link that leads in a circle.
    """
    root = pathlib.Path(os.path.expanduser(folder))
    if not str(folder) or not root.is_dir():
        raise SettingError("images", str(folder), "no such folder")
    files = sorted(images_below(root, str(folder), field="images"))
    if not files:
        raise SettingError("images", str(folder), f"holds no {', '.join(SUFFIXES)} files")
    return files


def picture_batches(
    files: Sequence[pathlib.Path],
    batch_size: int,
    image_shape: tuple[int, int, int],
    *,
    streamed: bool,
    unreadable: dict[pathlib.Path, str],
) -> Iterator[NumpyBatch]:
    """Yields every image once; "mask" is False for damaged files, and padding at the end.

    Args:
      files: as from `picture_files`.
      batch_size: images in a batch.
      image_shape: (height, width, channels) that come out. Images of another size are cut around
        their centre and resized.
      streamed: cut them as the test images of a streamed set.
      unreadable: gets the damaged files, and what is wrong.

    Yields:
      {"image" uint8, "mask"}.

    Raises:
      SettingError: for networks that take neither 1 nor 3 channels.
    """
    for first in range(0, len(files), batch_size):
        images = np.zeros((batch_size, *image_shape), np.uint8)
        mask = np.zeros(batch_size, bool)
        for place, file in enumerate(files[first : first + batch_size]):
            try:
                images[place] = _read(file, image_shape, streamed)
                mask[place] = True
            except UnreadableError as error:
                unreadable[file] = str(error)
        yield {"image": images, "mask": mask}


def _read(file: pathlib.Path, image_shape: tuple[int, int, int], streamed: bool) -> np.ndarray:
    """One image [height, width, channels] uint8."""
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
        raise UnreadableError(first_line(error)) from error
