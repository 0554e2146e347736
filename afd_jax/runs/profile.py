"""A trace of some steps, for xprof and Perfetto; the memory of devices."""

import dataclasses
import os
import pathlib
import re
import time
from collections.abc import Sequence
from typing import Any

import jax

from afd_jax.errors import SettingError

_EXAMPLE = "'20 steps at 100'"


@dataclasses.dataclass(frozen=True)
class Span:
    """The steps after `first`, up to and including `last`."""

    first: int
    last: int


def read_span(text: Any, total_steps: int) -> Span | None:
    """The steps that `config.profile` names; None if it is empty.

    Raises:
      SettingError: if it cannot be read, or goes beyond the run.

    >>> read_span("20 steps at 100", 1000)
    Span(first=100, last=120)
    """
    if text == "":
        return None
    match = re.fullmatch(r"\s*(\d+)\s+steps?\s+at\s+(\d+)\s*", str(text))
    count, first = (int(number) for number in match.groups()) if match else (0, 0)
    if not count:
        remedy = f"must be empty, or a number of steps and where they begin, such as {_EXAMPLE}"
        raise SettingError("profile", text, remedy)
    if first < 1:
        raise SettingError("profile", text, "the first step compiles; begin at 1, or later")
    if first + count > total_steps:
        raise SettingError("profile", text, f"ends after the run, which has {total_steps} steps")
    return Span(first, first + count)


class Profile:
    """Traces a span of steps into a folder; one that continues after the span traces nothing.

    The first steps of a session compile, so a trace never begins before them.

    Args:
      span: of the steps; None for no trace.
      folder: of the trace.
    """

    def __init__(self, span: Span | None, folder: pathlib.Path):
        self._span = span if jax.process_index() == 0 else None
        self._folder = folder
        self._tracing = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def after(self, step: int, results: Any) -> float:
        """Begins or ends where it is time to.

        Args:
          step: steps done.
          results: of the last of them, waited for so that a trace holds whole steps.

        Returns:
          Seconds that beginning and ending took.
        """
        if self._span is None:
            return 0.0
        due = self._span.first <= step < self._span.last
        if due == self._tracing:
            return 0.0
        jax.block_until_ready(results)
        start = time.perf_counter()
        if due:
            jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)
            self._tracing = True
        else:
            self._stop()
        return time.perf_counter() - start

    def _stop(self) -> None:
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()


def peak_memory(devices: Any) -> dict[str, int]:
    """{"peak_memory_bytes": ...}, the most that a device of this host has held.

    Empty where the backend does not say, as on CPUs: what a whole process has held is another
    thing.
    """
    own = (d.memory_stats() for d in devices if d.process_index == jax.process_index())
    peaks = [stats["peak_bytes_in_use"] for stats in own if stats and "peak_bytes_in_use" in stats]
    return {"peak_memory_bytes": max(peaks)} if peaks else {}


def device_memory(devices: Sequence[jax.Device]) -> int | None:
    """Bytes of one device, or its share of the machine for CPUs; None if they are not known."""
    if devices[0].platform != "cpu":
        return (devices[0].memory_stats() or {}).get("bytes_limit")
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // len(devices)
    except (AttributeError, ValueError, OSError):
        return None
