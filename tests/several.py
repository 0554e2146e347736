"""Runs of several real processes on this machine, over jax.distributed and Gloo."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

from tests.running import CONFIG, ROOT, SETTINGS

# Without heads: quick to compile. The learning rate is low, so that rounding does not grow.
RUN = (
    *SETTINGS[:-1],
    "--config.parallel.devices=None",
    "--config.method.name=dml",
    "--config.graph=all_pairs",
    "--config.optimizers.logit.learning_rate=0.01",
    "--config.checkpoint_every=4 steps",
    "--config.parallel.heartbeat_timeout=5",
)


def start(workdir, count, *more, config=CONFIG, devices=1):
    """The command, begun on so many hosts; or alone, without --distributed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    line = [sys.executable, "-u", "-m", "afd_jax", f"--config={config}", f"--workdir={workdir}"]
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", f"device_count={devices}")
    own = os.environ | {"XLA_FLAGS": flags}
    if count > 1:
        line.append("--distributed")
        own |= {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(count),
            "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        }
    return [
        subprocess.Popen(
            [*line, *RUN, *more],
            env=own | {"JAX_PROCESS_ID": str(index)} if count > 1 else own,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


def until(process, line):
    """Waits for a line of its output that begins so."""
    for own in process.stdout:
        if own.startswith(line):
            return
    raise AssertionError(process.communicate())


def ended(processes, timeout=240):
    """Exit codes, and what was written as errors."""
    try:
        errors = [process.communicate(timeout=timeout)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], [*map(_without_cache, errors)]


def _without_cache(errors):
    """Without warnings on the cache of programs, which all processes of all tests share."""
    return re.sub(r".*persistent compilation cache.*\n(?:  warnings\.warn.*\n)?", "", errors)


def worker(process):
    """The number of the process that trains for it."""
    listing = f"/proc/{process.pid}/task/{process.pid}/children"
    with open(listing) as file:
        return int(file.read().split()[0])


def alive(number):
    """Whether a process runs: those that have ended may wait for their parent."""
    try:
        status = pathlib.Path(f"/proc/{number}/status").read_text()
    except OSError:
        return False
    return "State:\tZ" not in status


def strike(process, number=signal.SIGKILL):
    os.kill(worker(process), number)
