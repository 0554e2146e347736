"""Stopping when asked to, at the end of a step and on all hosts together."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

_ASK_HOSTS_EVERY = 20


class Stop:
    """Whether the run has been asked to stop.

    Attributes:
      asked: this host has been.
    """

    asked = False

    def wanted(self, step: int) -> bool:
        """Answers the same on every host: they exchange messages, so only every 20 steps."""
        if jax.process_count() == 1:
            return self.asked
        ask = step % _ASK_HOSTS_EVERY == 0
        return ask and bool(multihost_utils.process_allgather(self.asked).any())


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop; a second one acts at once."""
    stop = Stop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in numbers}

    def handle(number: int, frame: Any) -> None:
        stop.asked = True
        signal.signal(number, before[signal.Signals(number)])

    try:
        for number in numbers:
            signal.signal(number, handle)
    except ValueError:  # not in the main thread: then signals are somebody else's
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
