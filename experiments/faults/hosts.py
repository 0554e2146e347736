"""One of several processes dies, freezes or is told to stop; the others must end, and all go on."""

import dataclasses
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import time

from experiments.faults.runs import DIGITS, HANG, ROOT, Small, ending, said

_HEARTBEAT = 10  # seconds
_BOUND = 30  # likewise, within which the others must have ended


@dataclasses.dataclass(frozen=True)
class Several(Small):
    """A small run of several processes on this machine, over Gloo.

    Attributes:
      count: how many.
    """

    count: int = 2

    def begin(self, workdir: pathlib.Path) -> list["subprocess.Popen[str]"]:
        """All of them, begun."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        shared = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(self.count),
            "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        }
        return [
            subprocess.Popen(
                [*self.command(workdir), "--distributed"],
                env=os.environ | shared | {"JAX_PROCESS_ID": str(index)},
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(self.count)
        ]

    def finish(self, workdir: pathlib.Path) -> tuple[int, str]:
        """As of one process: the first code that is not 0, and its words."""
        processes = self.begin(workdir)
        codes, errors = _ended(processes, HANG)
        if None in codes:
            for own in processes:
                _strike(own, signal.SIGKILL)
                own.kill()
            return -1, "hangs"
        failed = [index for index, code in enumerate(codes) if code]
        return (codes[failed[0]], errors[failed[0]]) if failed else (0, "")


PAIR = Several(
    "two processes",
    "digits_afd:resnet8,resnet8",
    (*DIGITS, f"parallel.heartbeat_timeout={_HEARTBEAT}"),
)


def lost(run: Small, whole: pathlib.Path, workdir: pathlib.Path, draw: random.Random) -> str:
    """Strikes one process at a random moment, waits for the others, and gives the command again.

    Arguments and result as of `stops.told_twice`.
    """
    assert isinstance(run, Several)
    shutil.rmtree(workdir, ignore_errors=True)
    processes = run.begin(workdir)
    time.sleep(draw.uniform(1, 40))
    struck = draw.randrange(run.count)
    number = draw.choice([signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
    if processes[struck].poll() is None:
        _strike(processes[struck], number)
    others = [own for index, own in enumerate(processes) if index != struck]
    codes, errors = _ended(others, _BOUND)
    for own in processes:
        _strike(own, signal.SIGKILL)
        own.kill()
        own.communicate()
    for code, words in zip(codes, errors, strict=True):
        if code is None:
            return f"does not end within {_BOUND} s after {number.name}"
        if code not in (0, 75, 130) or "Traceback" in words or len(words.strip().split("\n")) > 1:
            return f"exit code {code} after {number.name}, {said(words)}"
    return ending(run, whole, workdir)


def _strike(process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    """The process that trains, below the one that was started; that one where there is none."""
    try:
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            below = [int(child) for child in file.read().split()]
        for own in below or [process.pid]:
            os.kill(own, number)
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has ended


def _ended(
    processes: list["subprocess.Popen[str]"], seconds: float
) -> tuple[list[int | None], list[str]]:
    """Exit codes, None of one that has not ended by then, and what they wrote as errors."""
    until, errors = time.monotonic() + seconds, []
    for own in processes:
        try:
            errors.append(own.communicate(timeout=max(until - time.monotonic(), 0.1))[1])
        except subprocess.TimeoutExpired:
            errors.append("")
    return [own.returncode for own in processes], errors
