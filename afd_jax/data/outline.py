"""What is known of a data set without reading its images: how many, of which shape and classes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from afd_jax.data.encoded import Encoded, attempt_all, decode, is_coloured
from afd_jax.data.examples import Examples, Splits
from afd_jax.data.sources import (
    FILES,
    NAMES,
    TFDS_NAMES,
    from_files,
    load,
    prepared_builder,
    require_blocks,
    require_shares,
    require_streamable,
    split,
    test_split,
)
from afd_jax.data.streaming import Streamed
from afd_jax.errors import SettingError, one_of, require_number


@dataclasses.dataclass(frozen=True)
class Outline:
    """Stands for `Examples` wherever only their number, shape and labels matter.

    Attributes:
      image_shape: (height, width, channels).
      labels: [examples] int32; where they are not known, as many of each class as can be.
    """

    image_shape: tuple[int, int, int]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray | slice) -> "Outline":
        """The examples in the given rows."""
        return dataclasses.replace(self, labels=self.labels[rows])

    def drawn(self) -> Examples:
        """As many images of random pixels."""
        size = (len(self), *self.image_shape)
        images = np.random.default_rng(0).integers(0, 256, size, np.uint8)
        return Examples(images, self.labels)


@dataclasses.dataclass(frozen=True)
class _Known:
    """Training and test images, classes, shape (None: images differ in size)."""

    train: int
    test: int
    classes: int
    shape: tuple[int, int, int] | None


_KNOWN = {
    "cifar10": _Known(50_000, 10_000, 10, (32, 32, 3)),
    "cifar100": _Known(50_000, 10_000, 100, (32, 32, 3)),
    "digits": _Known(1_437, 360, 10, (8, 8, 1)),  # 1,797, as `sources` divides them
    "imagenet2012": _Known(1_281_167, 50_000, 1_000, None),
}


def outline(
    name: str,
    *,
    data_dir: str | None = None,
    image_size: int | None = None,
    heldout: float = 0.0,
    labels: int | None = None,
    limit: int | None = None,
    stream: bool = False,
) -> Splits:
    """The parts of a data set, of the sizes that `load` or `load_streamed` would give them.

    Well-known sets need no data. Of others in TFDS the description is read, of "folder" and
    "parquet" names, labels and the first image, and "arrays" as a whole.

    Args:
      name: as for `load`; the other arguments, too.
      data_dir: where the data are, if they are not well known.
      image_size: side of the images that come out.
      heldout: share of the training part that is held out.
      labels: train on so many examples only.
      limit: use only so many training and test examples.
      stream: whether images would be read from disk all along.

    Returns:
      `Splits` of `Outline`; of `Streamed` that cannot be read if they are streamed.

    Raises:
      SettingError: if the facts cannot be found out; it names the setting that gives them.
    """
    if image_size is not None:
        require_number("data.image_size", image_size, least=8 if stream else 1, whole=True)
    require_shares(heldout, limit)
    if stream:
        require_streamable(name)
    side = 224 if image_size is None else image_size
    if name in FILES:
        files, names = from_files(name, data_dir, heldout, labels, limit, stream)
        shape = (side, side, 3) if stream else _first(files, image_size, data_dir)
        return _splits([Outline(shape, part.labels) for part in files], names, stream)
    if name == "arrays" and not stream:
        more: dict[str, Any] = {"heldout": heldout, "labels": labels, "limit": limit}
        whole = load(name, data_dir=data_dir, image_size=image_size, **more)
        parts = [
            Outline(part.image_shape, part.labels)
            for part in (whole.train, whole.heldout, whole.test)
        ]
        return _splits(parts, whole.class_names, stream)
    known = _known(name, data_dir, stream)
    shape = (side, side, 3) if stream else _in_memory(known.shape, image_size)
    train, test = (
        Outline(shape, np.arange(count, dtype=np.int32) % known.classes)
        for count in (known.train, known.test)
    )
    if stream:  # labels are not read ahead
        count = round(heldout * len(train))
        kept, held = train.take(slice(count, None)), train.take(slice(count))
    else:
        kept, held = split(train, heldout, labels)
    parts = [part.take(slice(limit)) for part in (kept, held, test)]
    return _splits(parts, tuple(map(str, range(known.classes))), stream)


def _splits(parts: Sequence[Outline], names: tuple[str, ...], stream: bool) -> Splits:
    train, heldout, test = (_unreadable(part) if stream else part for part in parts)
    return Splits(train, heldout, test, names)


def _unreadable(part: Outline) -> Streamed:
    rows = np.arange(len(part), dtype=np.int32)
    return Streamed(None, part.image_shape[0], rows, workers=0, name="an outline", identity="")


def _first(
    parts: Sequence[Encoded], side: int | None, data_dir: str | None
) -> tuple[int, int, int]:
    """The shape of all images: the first one's, and of three channels if any has colours."""
    rows = [(part.source, int(row)) for part in parts for row in part.rows]
    where = str(data_dir)
    (image,) = attempt_all(lambda own: decode(own[0], own[1], side), rows[:1], "decoding", where)
    height, width = image.shape[:2]
    if image.ndim == 3:
        return height, width, 3
    coloured = any(attempt_all(lambda own: is_coloured(*own), rows, "checking", where))
    return height, width, 3 if coloured else 1


def _in_memory(shape: tuple[int, int, int] | None, side: int | None) -> tuple[int, int, int]:
    if shape is None:
        remedy = "the images differ in size, so they must be streamed; set it to True"
        raise SettingError("data.stream", False, remedy)
    if side is None:
        return shape
    require_blocks(*shape[:2], side)
    return side, side, shape[2]


def _known(name: str, data_dir: str | None, stream: bool) -> _Known:
    """A well-known set, or one as TFDS describes it where it is prepared."""
    bare = str(name).removeprefix("tfds:")
    tfds = stream or name in TFDS_NAMES or name != bare
    if bare in _KNOWN and tfds == (bare != "digits"):
        return _KNOWN[bare]
    if not tfds:
        raise SettingError("data.name", name, one_of(name, NAMES) + ", or 'tfds:NAME'")
    builder = prepared_builder(bare, data_dir, False)
    features, splits = builder.info.features, builder.info.splits
    test = test_split(builder, data_dir)
    shape = tuple(features["image"].shape)
    return _Known(
        splits["train"].num_examples,
        splits[test].num_examples,
        features["label"].num_classes,
        None if None in shape else shape,
    )
