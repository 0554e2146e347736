"""Kills and signals at random moments; the same command must end as if nothing had happened."""

import pathlib
import random
import shutil
import signal
import subprocess
import time

from experiments.faults.runs import HANG, Small, ending

MOST_KILLS = 6  # of one run, before it is left alone


def killed(
    run: Small, whole: pathlib.Path, workdir: pathlib.Path, draw: random.Random
) -> list[str]:
    """Kills a run with -9 again and again, then lets it end.

    Args:
      run: to kill.
      whole: folder of the same run, never stopped.
      workdir: an empty one.
      draw: of the moments.

    Returns:
      For each kill "equal", or what went wrong in the end.
    """
    shutil.rmtree(workdir, ignore_errors=True)
    kills = 0
    for _ in range(draw.randint(1, MOST_KILLS)):
        process = run.start(workdir)
        try:
            process.communicate(timeout=draw.uniform(1, 15))
            break  # it was done before
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
    return [ending(run, whole, workdir)] * kills


def told_twice(run: Small, whole: pathlib.Path, workdir: pathlib.Path, draw: random.Random) -> str:
    """Sends two signals, 0 to 200 ms apart, at a random moment, then lets the run end.

    Arguments as of `killed`; the result is one for both signals.
    """
    shutil.rmtree(workdir, ignore_errors=True)
    process = run.start(workdir)
    try:
        process.wait(draw.uniform(0.5, 15))
    except subprocess.TimeoutExpired:
        process.send_signal(draw.choice([signal.SIGINT, signal.SIGTERM]))
        time.sleep(draw.uniform(0, 0.2))
        if process.poll() is None:
            process.send_signal(draw.choice([signal.SIGINT, signal.SIGTERM]))
        begin = time.monotonic()
        try:
            _, errors = process.communicate(timeout=HANG)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return "hangs"
        if time.monotonic() - begin > 2:
            return f"ends {time.monotonic() - begin:.1f} s after the second signal"
        if "Traceback" in errors:
            return "traceback"
        if process.returncode not in (0, 130):
            return f"exit code {process.returncode}"
    return ending(run, whole, workdir)
