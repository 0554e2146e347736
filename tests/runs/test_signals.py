"""Ctrl-C and SIGTERM, once and twice, sent to the real command in another process."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from afd_jax.commands import shared
from afd_jax.runs.signals import leave_at_once, stop_signals
from tests.leaves import changed
from tests.running import CONFIG, ROOT, SETTINGS, command, final_state

LONG = ("--config.duration=40 epochs", "--config.checkpoint_every=1 epochs")


def started(workdir):
    """The command in the middle of its steps."""
    line = [sys.executable, "-m", "afd_jax", f"--config={CONFIG}", f"--workdir={workdir}"]
    return subprocess.Popen(
        [*line, *SETTINGS, *LONG],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def until_a_checkpoint(process, workdir):
    end = time.monotonic() + 120
    while not [f for f in workdir.glob("checkpoints/*") if f.name.isdecimal()]:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def until_it_heeds(process):
    """Waits until SIGTERM no longer ends the process by itself."""
    status, end = pathlib.Path(f"/proc/{process.pid}/status"), time.monotonic() + 60
    if not status.is_file():  # another system
        time.sleep(2)
        return
    while True:
        caught = re.search(r"SigCgt:\s*(\w+)", status.read_text())
        if caught and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.02)


def test_a_second_signal_leaves_at_once_and_the_run_continues(tmp_path):
    process = started(tmp_path / "twice")
    until_a_checkpoint(process, tmp_path / "twice")
    process.send_signal(signal.SIGINT)
    time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and time.monotonic() - begin < 2
    assert "the same command continues" in errors and "Traceback" not in errors

    assert command(tmp_path / "twice", *LONG) == 0
    assert command(tmp_path / "whole", *LONG) == 0
    assert not changed(*(final_state(tmp_path / name, *LONG) for name in ("twice", "whole")))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_first_step_says_that_the_command_continues(tmp_path, number):
    process = started(tmp_path / "run")
    until_it_heeds(process)
    time.sleep(0.5)  # it imports, assembles or compiles
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command continues" in errors and "Traceback" not in errors


def test_a_first_signal_asks_the_run_to_stop_and_handlers_come_back(capfd):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with leave_at_once(), stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        end = time.monotonic() + 10
        while not stop.asked and time.monotonic() < end:
            time.sleep(0.01)
        assert stop.asked
    assert "a second signal leaves at once" in capfd.readouterr().err
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_ctrl_c_within_the_function_has_a_code(capsys):
    def work():
        raise KeyboardInterrupt

    assert shared.guarded(work, continues=True) == 130
    assert "the same command continues" in capsys.readouterr().err
