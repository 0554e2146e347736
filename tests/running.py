"""Whole runs through the command line's own function, with tiny networks on the digits."""

import json
import pathlib
import signal

from afd_jax.commands.train import main
from afd_jax.reports.terminal import Progress
from afd_jax.runs.assemble import assemble
from afd_jax.runs.checkpoint import Checkpoints
from afd_jax.runs.overrides import read_config

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = f"{ROOT}/tests/digits_config.py:tests.tiny:Tiny,tests.tiny:Wider"
SETTINGS = (
    "--config.data.limit=192",
    "--config.batch_size=32",
    "--config.eval_batch_size=64",
    "--config.duration=4 epochs",
    "--config.log_every=4 steps",
    "--config.parallel.devices=1",
    "--config.method.critic.widths=(4,)",
)


def command(workdir, *more, config=CONFIG, settings=SETTINGS):
    return main([f"--config={config}", f"--workdir={workdir}", *settings, *more])


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def one_line(capsys):
    error = capsys.readouterr().err
    assert error.startswith("error: ") and len(error.splitlines()) == 1
    return error


def final_state(workdir, *more, config=CONFIG, settings=SETTINGS):
    run = assemble(read_config(config, [*settings, *more]))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return checkpoints.restore(run.initial_state())[0]


def damage(checkpoint):
    """Overwrites every file of a checkpoint."""
    for file in checkpoint.rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")


def ctrl_c_after(monkeypatch, step):
    """Sends Ctrl-C when the line of that step has been shown."""
    trained = Progress.trained

    def interrupt(self, record):
        trained(self, record)
        if record["step"] == step:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "trained", interrupt)
