"""Runs the smoke form of every config, stops and continues each, and prints a table.

  python experiments/smoke.py [NAME ...] [--config.data.data_dir=DIR ...]

Names choose configs, `cifar100_kd`; all if there are none. A config whose data are not there is
passed over. An error: a loss term that is not finite in any record or zero in the last, or a run
that does not continue.
"""

import math
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from afd_jax.runs.metrics import read_metrics
from afd_jax.runs.overrides import read_config
from afd_jax.runs.workdir import Workdir, read_json

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
NETWORK = "resnet8"


def run(command: list[str], *, stop: bool) -> tuple[int, str]:
    """Runs a command, with Ctrl-C after its first line of progress if asked; code and output."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, **pipes)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if stop and line.startswith("step "):
            process.send_signal(signal.SIGINT)
            stop = False
    return process.wait(), "".join(lines)


def try_config(file: pathlib.Path, folder: Workdir, overrides: list[str]) -> str:
    """Stops and continues one run; returns the rest of its row.

    Raises:
      AssertionError: naming what is wrong.
    """
    config = read_config(str(file))
    # As many as the config has, but two teachers are enough.
    networks = [NETWORK] * (len(config.networks) + min(2, len(config.teachers)))
    argument = ",".join([*networks, "smoke"])
    settings = [f"--config={file}:{argument}", f"--workdir={folder.path}", *overrides]
    command = [sys.executable, "-u", "-m", "afd_jax", *settings]
    started = time.perf_counter()
    code, output = run(command, stop=True)
    if code == 2 and "error: config.data." in output:
        return "no data: " + output.split("error: ")[-1].split(";")[0]
    assert code == 130, f"did not stop on Ctrl-C (exit code {code}): {output[-500:]}"
    code, output = run(command, stop=False)
    assert code == 0 and "continuing" in output, f"did not continue ({code}): {output[-500:]}"
    seconds = time.perf_counter() - started

    terms: dict[str, list[float]] = {}
    for record in read_metrics(folder.metrics):
        for name, value in record.items():
            if "/loss/" in name:
                terms.setdefault(name, []).append(value)
    for name, values in terms.items():
        # Some begin at zero: nobody has a last epoch in the first one.
        wrong = [v for v in values if not math.isfinite(v)] + [v for v in values[-1:] if v == 0]
        assert not wrong, f"{name} is {wrong[0]}"
    accuracy = "/".join(
        f"{100 * n['test_accuracy']:.1f}" for n in read_json(folder.summary)["networks"]
    )
    method = read_json(folder.config)["method"]["name"]
    names = ", ".join(dict.fromkeys(name.split("/loss/")[1] for name in terms))
    return f"{method:14}{seconds:>8.0f}{accuracy:>21}  {names}"


def main(arguments: list[str]) -> int:
    """Goes through the configs; 1 if any of them fails."""
    overrides = [a for a in arguments if a.startswith("--")]
    names = [a for a in arguments if not a.startswith("--")]
    print(f"{'config':26}{'method':14}{'seconds':>8}{'accuracy, %':>21}  loss terms", flush=True)
    failed = False
    for file in sorted(CONFIGS.glob("*.py")):
        if names and file.stem not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            fits = not file.stem.startswith(("digits", "tiny"))  # these are not TFDS's
            own = [o for o in overrides if fits or not o.startswith("--config.data.")]
            try:
                row = try_config(file, Workdir(pathlib.Path(folder)), own)
            except AssertionError as error:
                failed, row = True, f"FAILED: {error}"
        print(f"{file.stem:26}{row}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
