"""Stopping when asked to: at the end of a step and on all hosts together, or at once."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ASK_EVERY, _MOST = 2.0, 100  # seconds, but steps at most: how often hosts ask each other

EXIT_CODE = 130
"""Of a program that was asked to stop: the same command continues."""


class Stop:
    """Whether the run has been asked to stop.

    Attributes:
      asked: this host has been.
    """

    asked = False

    def __init__(self) -> None:
        self._calls, self._due, self._last = 0, 1, time.monotonic()

    def wanted(self) -> bool:
        """To be called once a step; answers the same on every host.

        They exchange messages, so only every two seconds or so.
        """
        import jax  # late: `leave_at_once` comes before it
        import numpy as np
        from jax.experimental import multihost_utils

        if jax.process_count() == 1:
            return self.asked
        self._calls += 1
        if self._calls < self._due:
            return False
        seconds = (time.monotonic() - self._last) / self._calls
        told = multihost_utils.process_allgather(np.array([self.asked, seconds], np.float32))
        # By the slowest, so that all ask again at the same step.
        wanted = _ASK_EVERY / max(float(told[:, 1].max()), 1e-6)
        self._due = round(min(max(wanted, 1), 2 * self._due, _MOST))
        self._calls, self._last = 0, time.monotonic()
        return bool(told[:, 0].any())


_stops: list[Stop] = []  # the run that may finish its step first, if there is one


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop; a second one acts as before."""
    stop = Stop()
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}

    def handle(number: int, frame: Any) -> None:
        stop.asked = True
        signal.signal(number, before[signal.Signals(number)])

    _stops.append(stop)
    try:
        # Elsewhere than in the main thread, or in `leave_at_once`, signals are somebody else's.
        own = threading.current_thread() is threading.main_thread() and not _watched
        if own:
            for number in _SIGNALS:
                signal.signal(number, handle)
        yield stop
    finally:
        _stops.remove(stop)
        if own:
            for number, handler in before.items():
                signal.signal(number, handler)


def ask_to_stop() -> bool:
    """Makes the run that is being trained finish its step, save and end; False if there is none."""
    for stop in _stops:
        stop.asked = True
    return bool(_stops)


_watched: list[threading.Thread] = []


@contextlib.contextmanager
def leave_at_once(orders: socket.socket | None = None) -> Iterator[None]:
    """While inside, a signal ends the program with a word, whatever it is doing.

    Within `stop_signals`, the first only asks the run to stop. A thread waits for signals, since
    Python's own handlers would wait for a compiler, or for files, to come back.

    Args:
      orders: signals come by it, and not to this process; the program ends if it closes.
    """
    if orders is not None:
        thread = threading.Thread(target=_obey, args=(orders,), daemon=True)
        thread.start()
        _watched.append(thread)
        yield
        return
    here, there = socket.socketpair()
    there.setblocking(False)
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}
    waker = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)
    thread = threading.Thread(target=_watch, args=(here,), daemon=True)
    thread.start()
    _watched.append(thread)
    try:
        yield
    finally:
        _watched.remove(thread)
        signal.set_wakeup_fd(waker)
        for number, handler in before.items():
            signal.signal(number, handler)
        there.close()
        thread.join()
        here.close()


def _obey(orders: socket.socket) -> None:
    _watch(orders)
    os._exit(EXIT_CODE)  # who waits for this program has been killed


def _watch(numbers: socket.socket) -> None:
    while received := numbers.recv(1):
        if received[0] not in _SIGNALS:
            continue
        if any(not stop.asked for stop in _stops):
            for stop in _stops:
                stop.asked = True
            _say("stopping after this step; a second signal leaves at once")
        else:
            _say("stopped; the same command continues from the last checkpoint")
            os._exit(EXIT_CODE)


def _say(words: str) -> None:
    # Not by print: the main thread may be in the middle of one.
    os.write(2, f"\n{words}\n".encode())
