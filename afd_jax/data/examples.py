"""A labelled set of images in memory."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from afd_jax.data.extra import need
from afd_jax.errors import SettingError

_AT_ONCE = 1024  # images whose pixels are counted


@dataclasses.dataclass(frozen=True)
class Examples:
    """Images and labels.

    Attributes:
      images: [examples, height, width, channels] uint8.
      labels: [examples] int32.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    @property
    def digest(self) -> str:
        """A fingerprint of images and labels, as hexadecimal SHA-256."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()

    def take(self, rows: np.ndarray | slice) -> "Examples":
        """The examples in the given rows."""
        return Examples(self.images[rows], self.labels[rows])

    @functools.cached_property
    def _statistics(self) -> tuple[Sequence[float], Sequence[float]]:
        return channel_statistics(self.images)

    def batch(self, size: int, start: int = 0) -> dict[str, np.ndarray]:
        """Some examples as a step takes them, without augmentation.

        Args:
          size: how many, at most.
          start: row of the first one.

        Returns:
          "image" [size, height, width, channels] float32, normalised by the mean and deviation of
          each channel over this set; "label" and "index" [size] int32.
        """
        rows = np.arange(start, min(start + size, len(self)), dtype=np.int32)
        mean, std = (np.array(x, np.float32) for x in self._statistics)
        images = (self.images[rows].astype(np.float32) / 255 - mean) / np.where(std == 0, 1, std)
        return {"image": images, "label": self.labels[rows], "index": rows}


class _Labelled(Protocol):
    @property
    def labels(self) -> np.ndarray: ...
    def take(self, rows: np.ndarray | slice) -> Any: ...


Labelled = TypeVar("Labelled", bound=_Labelled)


@dataclasses.dataclass(frozen=True)
class Splits:
    """A data set as training sees it: `Examples` in memory, or `Streamed` from disk.

    Attributes:
      train: what is learned from.
      heldout: taken from the training part for choosing epochs and settings; may be empty.
      test: only ever reported.
      class_names: of each label.
    """

    train: Any
    heldout: Any
    test: Any
    class_names: tuple[str, ...]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.train.image_shape

    @property
    def digest(self) -> str:
        """A fingerprint of all three parts, as hexadecimal SHA-256."""
        parts = (self.train, self.heldout, self.test)
        return hashlib.sha256("".join(part.digest for part in parts).encode()).hexdigest()


def hold_out(
    examples: Labelled, fraction: float, seed: int, *, field: str = "data.heldout"
) -> tuple[Labelled, Labelled]:
    """Splits off a fraction of the examples, the same share of each class.

    Args:
      examples: to split: `Examples`, or anything else with labels and `take`.
      fraction: of the examples to hold out, in [0, 1).
      seed: of the split; the same seed gives the same split in every run.
      field: the setting that asks for it, for errors.

    Returns:
      (kept, held out).
    """
    if not fraction:
        return examples, examples.take(slice(0, 0))
    model_selection = need("sklearn.model_selection", field, fraction)
    try:
        kept, held = model_selection.train_test_split(
            np.arange(len(examples.labels)),
            test_size=fraction,
            random_state=seed,
            stratify=examples.labels,
        )
    except ValueError as error:
        remedy = f"cannot hold out that share of {len(examples.labels)} examples: {error}"
        raise SettingError(field, fraction, remedy) from error
    return examples.take(np.sort(kept)), examples.take(np.sort(held))


def even_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """An order in which any first rows hold as many of each class as can be.

    Args:
      labels: [examples] of all.
      seed: of the order within a class.

    Returns:
      [examples] rows.
    """
    rows = np.random.default_rng(seed).permutation(len(labels))
    # The first of each class, then the second of each, ...
    return rows[np.argsort(place_in_class(labels[rows]), kind="stable")]


def place_in_class(labels: np.ndarray) -> np.ndarray:
    """How many of its class come before each example.

    Args:
      labels: [examples], integers.

    Returns:
      [examples] int64.
    """
    by_class = np.argsort(labels, kind="stable")
    _, counts = np.unique(labels, return_counts=True)
    place = np.empty(len(labels), np.int64)
    place[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return place


def evenly(examples: Labelled, count: int | None, seed: int) -> Labelled:
    """So many examples, as many of each class as can be, in their order; all if None."""
    if count is None:
        return examples
    return examples.take(np.sort(even_order(examples.labels, seed)[:count]))


def channel_statistics(images: np.ndarray) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation of each channel, as fractions of 255."""
    # From counts of the 256 values: exact, where a float32 sum over 50 million pixels is not.
    values = np.arange(256) / 255
    statistics = []
    for channel in range(images.shape[-1]):
        counts = np.zeros(256, np.int64)
        for first in range(0, len(images), _AT_ONCE):  # bincount makes 64 bits of each value
            part = images[first : first + _AT_ONCE, ..., channel]
            counts += np.bincount(part.ravel(), minlength=256)
        share = counts / counts.sum()
        mean = float(share @ values)
        statistics.append((mean, float(np.sqrt(share @ (values - mean) ** 2))))
    means, deviations = zip(*statistics, strict=True)
    return means, deviations
