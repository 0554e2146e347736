"""Ends a run that makes no step any more: nobody should wait, and pay, for one that hangs."""

import os
import pathlib
import sys
import threading
import time
import types
from typing import Any

from afd_jax.errors import require_number
from afd_jax.runs.processes import EXIT_CODE

_TICK = 1.0  # seconds
_TIMES, _LEAST = 20, 600  # assumed: so many times the longest pause so far, and seconds
_ROOM = str(pathlib.Path(__file__).parents[1])


class Watchdog:
    """Leaves the program when it has been silent for too long.

    It watches from the first sign of life on: compilation, before it and in a `rest`, may take any
    time. Time in which the whole process stands still, as on a laptop that sleeps, does not count.

    Args:
      timeout: seconds; None for 20 times the longest pause so far, but 10 minutes at least, of one
        process of several, and for never in a process that is alone.
      alone: whether it is.
    """

    def __init__(self, timeout: float | None, *, alone: bool):
        self._timeout = timeout
        self._watches = timeout is not None or not alone
        self._main = threading.get_ident()
        self._silent = self._longest = 0.0  # seconds
        self._begun = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def alive(self) -> None:
        """A sign of life."""
        self._longest = max(self._longest, self._silent)
        self._silent, self._begun = 0.0, True

    def rest(self) -> None:
        """Stops watching until the next sign of life, for what is compiled may take any time."""
        self._silent, self._begun = 0.0, False

    @property
    def patience(self) -> float:
        """Seconds of silence that are too many."""
        return self._timeout or max(_LEAST, _TIMES * self._longest)

    def __enter__(self) -> "Watchdog":
        if self._watches:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._end.wait(min(_TICK, self.patience / 4)):
            now = time.monotonic()
            if self._begun:
                self._silent += min(now - before, 2 * _TICK)
            before = now
            if self._silent > self.patience:
                words = f"error: no step for {self._silent:.0f} s, in {self._place()}; "
                words += "the same command continues from the last checkpoint"
                os.write(2, f"\n{words}\n".encode())
                os._exit(EXIT_CODE)

    def _place(self) -> str:
        """Where in this package the main thread stands."""
        frame: types.FrameType | None = sys._current_frames().get(self._main)
        while frame and not frame.f_code.co_filename.startswith(_ROOM):
            frame = frame.f_back
        if frame is None:
            return "a place unknown"
        return f"{os.path.relpath(frame.f_code.co_filename, _ROOM)}, line {frame.f_lineno}"


def check_step_timeout(field: str, value: Any) -> None:
    """Raises SettingError unless it is None or a number of seconds above 0."""
    if value is not None:
        require_number(field, value, above=0)
