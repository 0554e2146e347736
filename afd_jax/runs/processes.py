"""One process of several: how they meet, and how one that loses another ends.

JAX's coordination service notices a process that has died, or is silent for too long, and then
aborts all others from a thread of C++. So each process of a run is two: a worker, which trains, and
the program that was started, which waits for it, hands signals on, and turns such an end into a
line and an exit code.
"""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from afd_jax.errors import SettingError, first_line, require_number
from afd_jax.runs.signals import EXIT_CODE as STOPPED

EXIT_CODE = 75
"""Of a process that has lost another, or hangs: the same command, on all, continues."""

_VARIABLE = "AFD_JAX_WORKER"  # in a worker's environment: where it hears from who waits for it
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CONTINUES = "the same command continues from the last checkpoint"

_GRACE = 2.0  # seconds in which processes that fail alike say so, before one takes others along
_HELD = 10.0  # seconds that words of JAX's service wait to see whether they were the last

_SERVICE = re.compile(
    rb"^[EWF]\d{4} .*\b(coordination_service\w*\.cc|preemption_sync_manager\.cc|client\.h):\d+\]",
    re.MULTILINE,
)
_NAMED = re.compile(rb"stopped sending heartbeats\):\s*([\d,\s]*\d)|Task (\d+) heartbeat timeout")
_CONNECTION = re.compile(r"gloo|nccl|coordination service|UNAVAILABLE|DEADLINE_EXCEEDED", re.I)

_joined: float | None = None  # seconds until the others count as dead, once they have been met


def supervise(arguments: Sequence[str] | None = None) -> int:
    """Runs this program as a worker, and says how it ended if it could not.

    Args:
      arguments: of the Python that starts it; those of this program if None.

    Returns:
      The worker's exit code; `EXIT_CODE` if it was ended because another process is gone; 130 if it
      was stopped before it listened; as in a shell, 128 and the signal that ended it.
    """
    here, there = socket.socketpair()
    signals: list[int] = []

    def hand_on(number: int, _: Any) -> None:
        signals.append(number)
        try:
            here.send(bytes([number]))
        except OSError:  # it has just ended
            pass

    before = {number: signal.signal(number, hand_on) for number in _SIGNALS}
    worker = subprocess.Popen(
        [sys.executable, *(sys.orig_argv[1:] if arguments is None else arguments)],
        env=os.environ | {_VARIABLE: str(there.fileno())},
        pass_fds=[there.fileno()],
        stderr=subprocess.PIPE,
        start_new_session=True,  # a terminal's Ctrl-C comes by one way only
    )
    there.close()
    try:
        last = _pass_on(worker)
        code = worker.wait()
    finally:
        here.close()
        if worker.stderr:
            worker.stderr.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    if code == -signal.SIGABRT and _SERVICE.search(last):
        return _say(f"error: {_gone(last)}; {_CONTINUES}", EXIT_CODE)
    if code != EXIT_CODE:
        os.write(2, last)
    if code >= 0:
        return code
    if signals and -code in _SIGNALS:
        return STOPPED
    name = signal.Signals(-code).name
    why = " (out of memory, perhaps)" if -code == signal.SIGKILL else ""
    return _say(f"error: this process was ended by {name}{why}; {_CONTINUES}", 128 - code)


def _pass_on(worker: subprocess.Popen[bytes]) -> bytes:
    """Copies a worker's errors to ours; returns what its coordination service said last."""
    assert worker.stderr is not None
    source = worker.stderr.fileno()
    held, since, rest = b"", 0.0, b""
    while True:
        ready = select.select([source], [], [], 1.0)[0]
        new = os.read(source, 1 << 16) if ready else b""
        if not new and (ready or worker.poll() is not None):
            return held + rest
        *lines, rest = (rest + new).split(b"\n")
        for line in lines:
            if held or _SERVICE.match(line):
                since = since if held else time.monotonic()
                held += line + b"\n"
            else:
                os.write(2, line + b"\n")
        if held and time.monotonic() - since > _HELD:
            os.write(2, held)
            held = b""


def _gone(words: bytes) -> str:
    """Who is, by what JAX's coordination service says; it runs in process 0."""
    named = {n for match in _NAMED.findall(words) for n in re.findall(rb"\d+", b" ".join(match))}
    who = sorted(map(int, named)) or [0]
    verb, plural = ("is", "") if len(who) == 1 else ("are", "es")
    numbers = ", ".join(map(str, who))
    return f"process{plural} {numbers} {verb} gone (ended, or not to be reached in time)"


def orders() -> socket.socket | None:
    """In a worker, what signals come by; None elsewhere. To be called once."""
    number = os.environ.pop(_VARIABLE, None)
    if number is None:
        return None
    for ignored in _SIGNALS:  # whoever signals both shall not be taken for two
        signal.signal(ignored, signal.SIG_IGN)
    own = socket.socket(fileno=int(number))
    own.set_inheritable(False)
    return own


def is_worker() -> bool:
    """Whether somebody waits for this process; until `orders` has been called."""
    return _VARIABLE in os.environ


def join(heartbeat_timeout: Any) -> None:
    """Meets the other processes, by the JAX_* variables or by what JAX knows about the cluster.

    Args:
      heartbeat_timeout: seconds after which a silent process counts as dead.

    Raises:
      SettingError: if that is no such number, or the others cannot be met.
    """
    global _joined
    import jax

    check_heartbeat_timeout("config.parallel.heartbeat_timeout", heartbeat_timeout)
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    address, count, index = (os.environ.get(name) for name in names)
    if address and (count or index):
        for name, value in zip(names[1:], (count, index), strict=True):
            if value is None or not value.isdecimal():
                raise SettingError(name, value, f"must be a whole number, as {names[0]} is set")
    handler = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    own: dict[str, Any] = {}  # what is not told, JAX finds out
    if address and count and index:
        own = {"num_processes": int(count), "process_id": int(index)}
    try:
        jax.distributed.initialize(address, heartbeat_timeout_seconds=heartbeat_timeout, **own)
    except (RuntimeError, ValueError) as error:
        remedy = f"cannot join the other processes ({first_line(error)}); run under SLURM or on a "
        remedy += f"TPU pod, or set {', '.join(names)}"
        raise SettingError("--distributed", address, remedy) from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # JAX takes it for itself
    _joined = heartbeat_timeout


def check_heartbeat_timeout(field: str, value: Any) -> None:
    """Raises SettingError unless JAX takes it."""
    require_number(field, value, least=5, most=86_400, whole=True)


def is_lost(error: BaseException) -> bool:
    """Whether an error says that the connection to another process broke."""
    return _joined is not None and bool(_CONNECTION.search(str(error)))


def left_together(work: Callable[[], int]) -> int:
    """Does a program's work such that its end, if it is none all expect, ends the others too.

    JAX would have a process that leaves wait for the others, which may be waiting for it.

    Args:
      work: returns an exit code.

    Returns:
      That code, if the process is alone, done or stopped.
    """
    try:
        code = work()
    except Exception as error:
        if _joined is None:
            raise
        if is_lost(error):
            # The service is about to find out who is gone, and to end this process.
            time.sleep(1.5 * _joined + _GRACE)
            words = f"error: lost another process ({first_line(error)[:200]}); {_CONTINUES}"
            os._exit(_say(words, EXIT_CODE))
        traceback.print_exc()
        code = 1
    if _joined is not None and code not in (0, STOPPED):
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(_GRACE)
        os._exit(code)
    return code


def _say(words: str, code: int) -> int:
    os.write(2, f"\n{words}\n".encode())
    return code
