"""Batches that wait on the devices before the step that takes them."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Prefetched:
    """Batches that a thread places on the devices ahead of time; see `prefetch_to_device`."""

    def __init__(self, batches: Iterator[Any], put: Callable[[Any], Any], size: int):
        self._batches = batches
        self._put = put
        self._free = threading.Semaphore(size)
        self._ready: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._thread.start()

    def __iter__(self) -> "Prefetched":
        return self

    def __next__(self) -> Any:
        if self._closed:
            raise StopIteration
        placed, error = self._ready.get()
        if error is not None:
            self.close()
            raise error
        self._free.release()
        return placed

    def close(self) -> None:
        """Stops the thread, and closes the iterator if it can be closed."""
        self._closed = True
        self._free.release()
        self._thread.join()
        if hasattr(self._batches, "close"):
            self._batches.close()
        self._ready = queue.SimpleQueue()  # lets go of batches that nobody will take

    def _fill(self) -> None:
        try:
            while True:
                self._free.acquire()
                if self._closed:
                    return
                self._ready.put((self._put(next(self._batches)), None))
        except BaseException as error:  # StopIteration too: all are raised where they are awaited
            self._ready.put((None, error))


def prefetch_to_device(
    iterator: Iterator[Any], put: Callable[[Any], Any], size: int = 2
) -> Prefetched:
    """Keeps batches placed on the devices ahead of the step that takes them.

    A thread does so, since a transfer is asynchronous but copying the batch out of a worker's
    memory is not, and since the caller may be waiting for metrics or writing a checkpoint.

    Args:
      iterator: of batches on the host.
      put: places one batch.
      size: so many are placed and not yet taken, at most.

    Returns:
      An iterator over placed batches. It raises what `iterator` and `put` raise, in its place, and
      has `close()`, which also closes `iterator`.
    """
    return Prefetched(iterator, put, size)
