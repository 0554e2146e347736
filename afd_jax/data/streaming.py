"""Data sets too large for memory: read by Grain, decoded and augmented by worker processes.

What a batch holds is a function of seed and step, as for a set in memory: there is no state of a
stream to save, and the number of workers changes nothing. Workers are started afresh, so a script
that streams must be guarded by `if __name__ == "__main__"`, as always with `multiprocessing`; they
hand batches over in shared memory (/dev/shm), about three for each worker.
"""

import dataclasses
import functools
import hashlib
import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from absl import flags

from afd_jax.data.batches import NumpyBatch, epoch_order, eval_order
from afd_jax.data.crops import augmented, central, upright
from afd_jax.data.extra import need
from afd_jax.errors import UnreadableError, first_line

if TYPE_CHECKING:  # Pillow belongs to the extra "train"
    from PIL import Image

_THREADS = 4  # that read and decode when there are no worker processes

_order = functools.lru_cache(maxsize=2)(epoch_order)  # an epoch's end and the next one's beginning

Stream = Generator[NumpyBatch, None, None]
"""Batches that others prepare in the background; `close()` stops them before the end."""


@dataclasses.dataclass(frozen=True)
class Streamed:
    """A labelled set of images on disk.

    Attributes:
      source: random access to dicts with "image", an encoded file, and "label", a number; perhaps
        "file", its name for messages.
      image_size: side of the images that come out.
      rows: [examples] int32, the rows of the source that belong to the set.
      workers: processes that decode; 0 for threads of this process.
      name: for messages.
      identity: tells the source's contents from others'.
      upright: turn images as their EXIF data say; prepared sets are taken as they are.
    """

    source: Any
    image_size: int
    rows: np.ndarray
    workers: int
    name: str
    identity: str
    upright: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: np.ndarray | slice) -> "Streamed":
        """The examples in the given rows of this set."""
        return dataclasses.replace(self, rows=self.rows[rows])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.image_size, self.image_size, 3

    @property
    def digest(self) -> str:
        """A fingerprint of the data, as hexadecimal SHA-256."""
        rows = np.ascontiguousarray(self.rows, np.int32)
        return hashlib.sha256(self.identity.encode() + rows.tobytes()).hexdigest()

    def read(self, index: int, convert: "Callable[[Image.Image], Image.Image]") -> Any:
        """Decodes one example.

        Args:
          index: of the example in this set.
          convert: crops the opened image, which is not decoded yet, and resizes it.

        Returns:
          (image [size, size, 3] uint8, label).

        Raises:
          UnreadableError: for a damaged image; it names the file, or the row of the source.
        """
        from PIL import Image

        row = int(self.rows[index])
        what = f"row {row} of {self.name}"
        try:
            example = self.source[row]
            what = example.get("file", what)
            with Image.open(io.BytesIO(example["image"])) as file:
                cut = convert(upright(file) if self.upright else file)
                image = np.asarray(cut.convert("RGB"))
        except Exception as error:  # each decoder has its own
            raise UnreadableError(f"{what} cannot be read: {first_line(error)}") from error
        return image, example["label"]


def train_stream(
    streamed: Streamed, batch_size: int, *, seed: int, start_step: int, end_step: int
) -> Stream:
    """Yields this host's part of each training batch, augmented, in the order of `train_rows`.

    Every image is cut at random to 8 to 100 % of its area and a ratio of 3/4 to 4/3, resized and
    flipped half of the time; what is drawn depends on seed, epoch and row alone.

    Args:
      streamed: the training set.
      batch_size: over all hosts.
      seed: of the run.
      start_step: the first step to yield, counted from the beginning of the run.
      end_step: the step to stop before.

    Yields:
      {"image" [batch, size, size, 3] uint8, "label" [batch] int32, "index" [batch] int32}; the
      index is the row of the training set.

    Raises:
      SettingError: if Grain is not installed.
      UnreadableError: while reading, for a damaged image.
    """
    host, hosts = jax.process_index(), jax.process_count()
    batches = _TrainBatches(streamed, batch_size, seed, start_step, end_step, host, hosts)
    return _start(batches, streamed.workers)


def eval_stream(streamed: Streamed, batch_size: int) -> Stream:
    """Yields every example once; the last batch is padded, and "mask" is False for padding.

    The order is that of `data.batches.eval_order`. The shorter side is resized to 256/224 of the
    output's, and the centre is kept.

    Args:
      streamed: to evaluate on.
      batch_size: over all hosts.

    Yields:
      {"image", "label", "mask"}, this host's part.

    Raises:
      SettingError: if Grain is not installed.
      UnreadableError: while reading, for a damaged image.
    """
    host, hosts = jax.process_index(), jax.process_count()
    return _start(_EvalBatches(streamed, batch_size, host, hosts), streamed.workers)


@dataclasses.dataclass(frozen=True)
class _TrainBatches:
    """Random access to training batches, so that any worker can make any of them."""

    streamed: Streamed
    batch_size: int
    seed: int
    start_step: int
    end_step: int
    host: int
    hosts: int

    def __len__(self) -> int:
        return max(self.end_step - self.start_step, 0)

    def __getitem__(self, position: int) -> NumpyBatch:
        per_epoch = len(self.streamed) // self.batch_size
        epoch, place = divmod(self.start_step + position, per_epoch)
        order = _order(self.seed, epoch, len(self.streamed))
        whole = order[place * self.batch_size : (place + 1) * self.batch_size]
        index = np.split(whole, self.hosts)[self.host]
        size = self.streamed.image_size

        def read(i: int) -> Any:
            draw = np.random.default_rng((self.seed, epoch, i))
            return self.streamed.read(i, lambda image: augmented(image, size, draw))

        images, labels = zip(*map(read, index.tolist()), strict=True)
        return {"image": np.stack(images), "label": np.array(labels, np.int32), "index": index}


@dataclasses.dataclass(frozen=True)
class _EvalBatches:
    """Random access to batches for evaluation."""

    streamed: Streamed
    batch_size: int
    host: int
    hosts: int

    def __len__(self) -> int:
        return -(-len(self.streamed) // self.batch_size)

    def __getitem__(self, position: int) -> NumpyBatch:
        whole = np.arange(position * self.batch_size, (position + 1) * self.batch_size)
        index = np.split(whole, self.hosts)[self.host]
        size = self.streamed.image_size
        images = np.zeros((len(index), *self.streamed.image_shape), np.uint8)
        labels = np.zeros(len(index), np.int32)
        mask = index < len(self.streamed)
        rows = eval_order(len(self.streamed))[index[mask]]
        for place, i in enumerate(rows.tolist()):
            images[place], labels[place] = self.streamed.read(i, lambda x: central(x, size))
        return {"image": images, "label": labels, "mask": mask}


def require_grain() -> Any:
    """Imports Grain; raises SettingError where it is not installed."""
    return need("grain", "data.stream", True, "streaming")


def _start(batches: Any, workers: int) -> Stream:
    grain = require_grain()
    if not flags.FLAGS.is_parsed():  # by a script that has none; Grain asks for some of its own
        flags.FLAGS.mark_as_parsed()
    threads = 0 if workers else _THREADS
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    # Whole batches are dealt out to the workers in turn: dealt images would come in another order
    # for every number of workers.
    data = grain.MapDataset.source(batches).to_iter_dataset(reading)
    options = grain.MultiprocessingOptions(num_workers=workers)
    stream = iter(data.mp_prefetch(options, worker_init_fn=_begin_worker))
    stream.start_prefetch()
    return _until_closed(stream)


def _until_closed(stream: Any) -> Stream:
    # A generator that is closed forgets the stream; one that is forgotten only as Python ends
    # finds half of Grain gone, and says so.
    try:
        yield from stream
    finally:
        stream.close()


def _begin_worker(worker: int, workers: int) -> None:
    # A run that is asked to stop finishes its step and saves; it needs its workers until then.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # nobody is left to take batches
