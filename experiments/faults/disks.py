"""A disk that fills up, or may suddenly not be written on; the run must say so and go on later.

The disk is a small one in memory, mounted where only the run sees it: Linux with user namespaces.
"""

import dataclasses
import json
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time

from experiments.faults.runs import HANG, ROOT, Small, ending, said

_ENOUGH = 256  # MiB, for the whole run
_LEAST, _MOST = 0.02, 16  # MiB: from hardly a file to more than it needs


def possible() -> bool:
    """Whether this system allows it."""
    asked = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/tmp"]
    return (
        bool(shutil.which("unshare")) and not subprocess.run(asked, capture_output=True).returncode
    )


def disturbed(run: Small, whole: pathlib.Path, workdir: pathlib.Path, draw: random.Random) -> str:
    """Runs on a disk of random size, or one that becomes read-only; then with room to the end.

    Arguments and result as of `stops.killed`.
    """
    if not possible():
        raise SystemExit("this system lets nobody mount a private disk (unshare -rm)")
    shutil.rmtree(workdir, ignore_errors=True)
    workdir.mkdir(parents=True)
    module = [sys.executable, "-m", "experiments.faults.disks"]
    given = [json.dumps(dataclasses.asdict(run)), str(whole), str(workdir)]
    line = [*module, *given, str(draw.randrange(2**32))]
    own = subprocess.run(
        ["unshare", "-rm", *line], cwd=ROOT, capture_output=True, text=True, timeout=3 * HANG
    )
    lines = own.stdout.strip().splitlines() or own.stderr.strip().splitlines()[-1:]
    return lines[-1] if lines else f"exit code {own.returncode} without a word"


def _inside(run: Small, whole: pathlib.Path, workdir: pathlib.Path, draw: random.Random) -> str:
    """The same where mounting is allowed."""
    full = draw.random() < 0.5
    size = _LEAST * (_MOST / _LEAST) ** draw.random() if full else _ENOUGH
    _mount(f"-ttmpfs -osize={int(size * 2**20)} tmpfs", workdir)
    process = run.start(workdir)
    if not full:
        time.sleep(draw.uniform(1, 15))
        _read_only(process, workdir)
    try:
        _, errors = process.communicate(timeout=HANG)
    except subprocess.TimeoutExpired:
        process.kill()
        return "hangs"
    if process.returncode not in (0, 1, 2):
        return f"exit code {process.returncode}, {said(errors)}"
    if process.returncode and (
        "Traceback" in errors or not re.search("space|read-only|written on|no room", errors, re.I)
    ):
        return f"other words: {said(errors)}"
    _mount(f"-oremount,rw,size={_ENOUGH}M", workdir)
    return ending(run, whole, workdir)


def _read_only(process: "subprocess.Popen[str]", folder: pathlib.Path) -> None:
    """As soon as no file there is open for writing, for so long as the run lasts."""
    while process.poll() is None:
        try:
            _mount("-oremount,ro", folder)
            return
        except subprocess.CalledProcessError:
            time.sleep(0.01)


def _mount(options: str, folder: pathlib.Path) -> None:
    subprocess.run(["mount", *options.split(), str(folder)], check=True, capture_output=True)


if __name__ == "__main__":
    given, *folders, seed = sys.argv[1:]
    asked = Small(**json.loads(given))
    print(_inside(asked, *map(pathlib.Path, folders), random.Random(int(seed))))
