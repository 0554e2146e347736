"""The order in which examples are seen: a function of seed and step, so there is none to save."""

import functools
from collections.abc import Generator, Iterator, Sequence

import jax
import numpy as np

from afd_jax.data.examples import Examples, place_in_class

NumpyBatch = dict[str, np.ndarray]


def train_rows(
    count: int,
    batch_size: int,
    *,
    seeds: Sequence[int],
    start_step: int,
    end_step: int,
    whole: bool = False,
    labels: np.ndarray | None = None,
) -> Generator[np.ndarray, None, None]:
    """Yields this host's part of each training batch, as rows of the training set.

    Every epoch is a new permutation of all examples, drawn from (seed, epoch); what does not fill
    the last batch of an epoch is left out of that epoch. With labels it is one of `paired_order`.

    Args:
      count: of training examples.
      batch_size: over all hosts.
      seeds: of the run.
      start_step: the first step to yield, counted from the beginning of the run.
      end_step: the step to stop before.
      whole: every host gets the whole batch.
      labels: [examples]; for batches of pairs of a class.

    Yields:
      [batch] int32; for several seeds [batch, seeds].
    """
    per_epoch = count // batch_size
    epoch, order = -1, np.empty(0, np.int32)
    for step in range(start_step, end_step):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = np.stack([epoch_order(seed, epoch, count, labels) for seed in seeds], axis=1)
        first = step % per_epoch * batch_size
        rows = order[first : first + batch_size]
        rows = rows if whole else _own_part(rows)
        yield rows if len(seeds) > 1 else rows[:, 0]


def epoch_order(seed: int, epoch: int, count: int, labels: np.ndarray | None = None) -> np.ndarray:
    """The permutation of `count` examples that an epoch sees, [count] int32; see `train_rows`."""
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(count) if labels is None else paired_order(labels, rng)
    return order.astype(np.int32)


def paired_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random order of all examples in which two of a class follow each other.

    The pairs of each class are spread evenly, so that classes of one size come in rounds, one pair
    of each. What is left of classes with an odd number of examples comes at the end.

    Args:
      labels: [examples], integers.
      rng: to draw from.

    Returns:
      [examples] rows.
    """
    order = rng.permutation(len(labels))
    classes, own, counts = np.unique(labels[order], return_inverse=True, return_counts=True)
    place, pairs = place_in_class(own), counts[own] // 2
    turns = rng.random((int(np.max(place)) // 2 + 1, len(classes)))[place // 2, own]
    # When the pair's turn comes, as a share of the epoch; what is left alone comes after it.
    when = np.where(place < 2 * pairs, (place // 2 + turns) / np.maximum(pairs, 1), 1 + turns)
    return order[np.lexsort((place, own, when))]


def with_partners(
    each: Iterator[np.ndarray],
    labels: np.ndarray,
    *,
    seeds: Sequence[int],
    start_step: int,
    steps_per_epoch: int,
) -> Generator[NumpyBatch, None, None]:
    """Puts beside each row another of the same class, drawn anew from (seed, epoch).

    Args:
      each: as from `train_rows`.
      labels: [examples], of the training set.
      seeds: as there.
      start_step: likewise.
      steps_per_epoch: likewise.

    Yields:
      {"index", "partner"}, of the shape of the rows.
    """
    epoch, tables = -1, np.empty((0, 0), np.int32)
    for step, rows in enumerate(each, start_step):
        if step // steps_per_epoch != epoch:
            epoch = step // steps_per_epoch
            draws = [class_partners(labels, np.random.default_rng((s, epoch, 1))) for s in seeds]
            tables = np.stack(draws, axis=1)
        partners = tables[rows, np.arange(len(seeds))] if rows.ndim > 1 else tables[rows, 0]
        yield {"index": rows, "partner": partners}


def class_partners(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each example, another one of its class at random; itself if it is the only one.

    Args:
      labels: [examples], integers.
      rng: to draw from.

    Returns:
      [examples] int32, rows.
    """
    by_class = np.argsort(labels, kind="stable")
    _, firsts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    first, count = (np.repeat(x, counts) for x in (firsts, counts))
    place = np.arange(len(labels)) - first
    # A shift by 1 to count - 1 places never ends where it began.
    shift = 1 + np.floor(rng.random(len(labels)) * (count - 1)).astype(int)
    partners = np.empty(len(labels), np.int32)
    partners[by_class] = by_class[first + (place + shift) % count]
    return partners


@functools.lru_cache(maxsize=4)
def eval_order(count: int) -> np.ndarray:
    """The rows in the fixed order in which evaluations go through them.

    It mixes classes, which folders keep apart: CKA is estimated batch by batch, and would else
    depend on how the files are sorted.
    """
    order = np.random.default_rng(0).permutation(count)
    order.flags.writeable = False
    return order


def eval_batches(examples: Examples, batch_size: int) -> Iterator[NumpyBatch]:
    """Yields every example once; the last batch is padded, and "mask" is False for padding.

    The order is that of `eval_order`.

    Args:
      examples: to evaluate on.
      batch_size: over all hosts.

    Yields:
      {"image", "label", "mask"}, numpy, this host's part.
    """
    for first in range(0, len(examples), batch_size):
        rows = np.arange(first, first + batch_size)
        rows, mask = np.minimum(rows, len(examples) - 1), rows < len(examples)
        own = _own_part(eval_order(len(examples))[rows])
        yield {
            "image": examples.images[own],
            "label": examples.labels[own],
            "mask": _own_part(mask),
        }


def _own_part(rows: np.ndarray) -> np.ndarray:
    return np.split(rows, jax.process_count())[jax.process_index()]
