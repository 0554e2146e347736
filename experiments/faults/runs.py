"""A small run as a command of its own, and what it leaves."""

import dataclasses
import json
import pathlib
import subprocess
import sys
from typing import Any

import jax
import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
HANG = 600  # seconds: many times what a small run needs, also on a busy machine


@dataclasses.dataclass(frozen=True)
class Small:
    """A run of about ten seconds.

    Attributes:
      name: for the table.
      config: as --config takes it.
      settings: overrides of the command line.
    """

    name: str
    config: str
    settings: tuple[str, ...]

    def command(self, workdir: pathlib.Path) -> list[str]:
        """The command line of the run in a folder."""
        line = [sys.executable, "-m", "afd_jax", f"--config={self.config}", f"--workdir={workdir}"]
        return [*line, *(f"--config.{setting}" for setting in self.settings)]

    def start(self, workdir: pathlib.Path) -> subprocess.Popen[str]:
        """The command, begun."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(self.command(workdir), cwd=ROOT, text=True, **pipes)

    def finish(self, workdir: pathlib.Path) -> tuple[int, str]:
        """Runs the command to its end; returns its exit code and what it wrote as errors."""
        process = self.start(workdir)
        try:
            _, errors = process.communicate(timeout=HANG)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return -1, "hangs"
        return process.returncode, errors


_SHORT = ("duration=60 steps", "seeds=1", "eval_every=9 steps", "log_every=4 steps")
DIGITS = ("data.limit=192", "batch_size=32", "checkpoint_every=7 steps", *_SHORT)

RUNS = (
    Small("quick start", "digits_afd:resnet8,resnet8", DIGITS),
    Small("cycle of three", "digits_afd:resnet8,resnet8,resnet8", DIGITS),
    Small("PS-KD, which remembers", "digits_afd:resnet8", (*DIGITS, "method.name=ps_kd")),
    Small("three generations", "digits_afd:resnet8", (*DIGITS, "method.name=kd", "generations=3")),
)


def on_cifar100(data_dir: str) -> Small:
    """A cycle of three on a part of CIFAR-100, at 16x16."""
    settings = (*DIGITS, f"data.data_dir={data_dir}", "data.image_size=16", "method.name=afd")
    return Small("cycle of three on CIFAR-100", "cifar100_afd:resnet8,resnet8,resnet8", settings)


def said(errors: str) -> str:
    """The last line of what a program wrote as errors, or its beginning."""
    lines = errors.strip().splitlines() or ["no word"]
    return lines[-1][:100]


def ending(run: Small, whole: pathlib.Path, workdir: pathlib.Path) -> str:
    """Gives the command of a disturbed run again, and compares: "equal", or what went wrong."""
    code, errors = run.finish(workdir)
    if code:
        return f"does not continue: exit code {code}, {said(errors)}"
    difference = same_end(whole, workdir)
    return f"another end: {difference}" if difference else "equal"


def same_end(one: pathlib.Path, other: pathlib.Path) -> str | None:
    """How two finished runs differ in metrics, accuracies or arrays; None if they do not."""
    for a, b in zip(_folders(one), _folders(other), strict=True):
        if _lines(a) != _lines(b):
            return f"metrics of {a.name}"
        if _accuracies(a) != _accuracies(b):
            return f"accuracies of {a.name}"
        ours, theirs = _arrays(a), _arrays(b)
        if ours.keys() != theirs.keys():
            return f"names of arrays of {a.name}"
        for name, x in ours.items():
            if not np.array_equal(x, theirs[name]):
                return f"{name} of {a.name}"
    return None


def _folders(workdir: pathlib.Path) -> list[pathlib.Path]:
    return [workdir, *sorted(workdir.glob("generation_*")), *sorted(workdir.glob("teacher_*"))]


def _lines(workdir: pathlib.Path) -> list[Any]:
    """The metrics without what depends on the clock."""
    text = (workdir / "metrics.jsonl").read_text()
    clock = ("images_per_second", "seconds")
    lines = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in line.items() if not k.endswith(clock)} for line in lines]


def _accuracies(workdir: pathlib.Path) -> Any:
    summary = json.loads((workdir / "summary.json").read_text())
    return summary["networks"], summary["differences"]


def _arrays(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint."""
    import orbax.checkpoint as ocp

    steps = [p for p in (workdir / "checkpoints").iterdir() if p.name.isdecimal()]
    newest = max(steps, key=lambda p: int(p.name)).resolve()
    with ocp.PyTreeCheckpointer() as reader:
        stored = reader.metadata(newest / "state").item_metadata.tree
        # Wherever the run's devices were.
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
        tree = reader.restore(newest / "state", args=ocp.args.PyTreeRestore(restore_args=how))
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
