"""Labelled images as files hold them, not decoded yet: what folders and tables give."""

import concurrent.futures
import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from afd_jax.data.cores import usable_cores
from afd_jax.data.crops import central, has_colours, plain, upright
from afd_jax.data.examples import Examples, hold_out
from afd_jax.data.extra import need
from afd_jax.data.streaming import Streamed
from afd_jax.errors import SettingError, first_line

TEST_SHARE = 0.2
_SEED = 0  # of splits, the same in every run
_SHOWN = 5  # so many names of damaged files


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A labelled set of encoded images, some rows of a source.

    Attributes:
      source: random access to {"image": bytes, "label": number, "file": name}, as `Streamed` takes.
      rows: [examples] int32.
      labels: [examples] int32.
      name: for messages.
      identity: tells the source's contents from others'.
    """

    source: Any
    rows: np.ndarray
    labels: np.ndarray
    name: str
    identity: str

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: np.ndarray | slice) -> "Encoded":
        """The examples in the given rows of this set."""
        return dataclasses.replace(self, rows=self.rows[rows], labels=self.labels[rows])

    def streamed(self, image_size: int, workers: int) -> Streamed:
        """The same set, decoded batch by batch."""
        name, identity = self.name, self.identity
        return Streamed(self.source, image_size, self.rows, workers, name, identity, upright=True)


def with_test(train: Encoded, test: Encoded | None, data_dir: str) -> tuple[Encoded, Encoded]:
    """Training and test part; where there is no test part, a fifth is kept for it.

    Raises:
      SettingError: if some class has too few images for that.
    """
    if test is not None:
        return train, test
    try:
        return hold_out(train, TEST_SHARE, _SEED, field="data.name")
    except SettingError as error:
        remedy = "there is no test part, and a fifth of the images cannot be kept for it: "
        raise SettingError("data.data_dir", data_dir, remedy + error.remedy) from error


def decoded(parts: Sequence[Encoded], side: int | None, data_dir: str) -> list[Examples]:
    """Decodes all images of some sets into memory.

    Args:
      parts: of one data set; the first must not be empty.
      side: resize the shorter side to it and keep the centre; None for images as they are.
      data_dir: for errors.

    Returns:
      `Examples` for each part: of one channel if all images of all parts are grey, of three if not.

    Raises:
      SettingError: if images cannot be read; or if they differ in size, and no side is given.
    """
    need("PIL", "data.data_dir", data_dir)
    rows = [(part.source, int(row)) for part in parts for row in part.rows]
    images = attempt_all(lambda own: decode(own[0], own[1], side), rows, "decoding", data_dir)
    shapes = {image.shape[:2]: own for image, own in zip(images, rows, strict=True)}
    if len(shapes) > 1:
        found = [
            f"{source[row]['file']} of {width}x{height}"
            for (height, width), (source, row) in [*shapes.items()][:2]
        ]
        remedy = f"the images differ in size, such as {' and '.join(found)}; give the side that "
        raise SettingError("data.image_size", side, remedy + "all are to have")
    grey = all(image.ndim == 2 for image in images)
    (height, width), channels = next(iter(shapes)), 1 if grey else 3
    whole = np.empty((len(images), height, width, channels), np.uint8)
    for row, image in enumerate(images):
        whole[row] = image if image.ndim == 3 else image[..., None]
    ends = np.cumsum([len(part) for part in parts])[:-1]
    each = zip(np.split(whole, ends), parts, strict=True)
    return [Examples(own, part.labels) for own, part in each]


def attempt_all(
    work: Callable[[Any], Any], items: Sequence[Any], doing: str, data_dir: str
) -> list[Any]:
    """Does the same with every image, in threads, and names those that it failed for.

    Args:
      work: to do with one item; raises an exception whose first line names the image.
      items: to do it with.
      doing: what is done, for the progress bar.
      data_dir: for errors.

    Returns:
      Results, in order.

    Raises:
      SettingError: for what failed: how many, and the first few.
    """
    tqdm = need("tqdm", "data.data_dir", data_dir).tqdm

    def attempt(item: Any) -> tuple[Any, str | None]:
        try:
            return work(item), None
        except Exception as error:  # each decoder has its own
            return None, first_line(error)

    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
        each: Iterator[Any] = pool.map(attempt, items)
        done = list(tqdm(each, f"{doing} images", len(items), leave=False, disable=None))
    failed = [words for _, words in done if words is not None]
    if failed:
        more = f"; and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        remedy = f"{len(failed)} of {len(items)} images cannot be read; mend or remove them: "
        raise SettingError("data.data_dir", data_dir, remedy + "; ".join(failed[:_SHOWN]) + more)
    return [result for result, _ in done]


def decode(source: Any, row: int, side: int | None) -> np.ndarray:
    """One image, uint8 [h, w] or [h, w, 3].

    Raises:
      ValueError: if it is damaged; it names the image.
      OSError: if the file cannot be read.
    """
    from PIL import Image

    example = source[row]
    try:
        with Image.open(io.BytesIO(example["image"])) as file:
            image = upright(file)
            return np.asarray(plain(image) if side is None else central(image, side, margin=1))
    except Exception as error:
        raise ValueError(f"{example['file']} ({first_line(error)})") from error


def is_coloured(source: Any, row: int) -> bool:
    """Whether an image will have three channels; reads its beginning. Errors as in `decode`."""
    from PIL import Image

    example = source[row]
    try:
        with Image.open(io.BytesIO(example["image"])) as file:
            return has_colours(file)
    except Exception as error:
        raise ValueError(f"{example['file']} ({first_line(error)})") from error
