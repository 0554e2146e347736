"""What a person sees of a run: progress, summary, table and curves."""

import datetime
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import flax
import jax
import optax
from tqdm import tqdm

import afd_jax
from afd_jax.runs.assemble import Run
from afd_jax.engine.init import state_shapes
from afd_jax.runs.metrics import Record, mean_record
from afd_jax.networks.branched import single

_PARTS = ("networks", "alone", "others")


class Progress:
    """A progress bar on a terminal, plain lines elsewhere.

    Args:
      run: for names and length.
      start: first step of this session.
      shown: print at all.
    """

    def __init__(self, run: Run, start: int, shown: bool):
        self._run = run
        self._lines = shown and not sys.stderr.isatty()
        self._shown = shown
        self._bar = tqdm(
            total=run.total_steps,
            initial=start,
            unit="step",
            disable=not shown or self._lines,
            dynamic_ncols=True,
        )
        self._say("compiling the training step ...")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def trained(self, record: Record) -> None:
        """Shows a training record."""
        members = range(self._run.cohort.members)
        loss = "/".join(f"{_total_loss(record, k):.3f}" for k in members)
        accuracy = "/".join(f"{100 * record[f'{k}/accuracy']:.1f}" for k in members)
        speed = f"{record['images_per_second']:.0f} img/s"
        self._bar.update(record["step"] - self._bar.n)
        self._bar.set_postfix_str(f"loss {loss}, acc {accuracy} %, {speed}")
        if self._lines:
            print(
                f"step {record['step']}/{self._run.total_steps}  loss {loss}  acc {accuracy} %  "
                f"{speed}, ETA {self._left(record)}",
                flush=True,
            )

    def _left(self, record: Record) -> str:
        images = (self._run.total_steps - record["step"]) * self._run.batch_size
        rate = record["images_per_second"]
        return str(datetime.timedelta(seconds=round(images / rate))) if rate else "unknown"

    def evaluated(self, record: Record) -> None:
        """Shows an evaluation record."""
        accuracy = [f"{100 * a:.2f}" for a in record["accuracy"]]
        together, rest = accuracy[: self._run.cohort.members], accuracy[self._run.cohort.members :]
        line = f"epoch {record['epoch']:.4g}  {record['kind']} accuracy {'/'.join(together)} %"
        names = self._run.cohort.nodes[len(together) :]
        if self._run.cohort.alone:
            line += f", alone {'/'.join(rest[: len(together)])} %"
            names, rest = names[len(together) :], rest[len(together) :]
        if len(rest) > 2:
            line += f", others {'/'.join(rest)} %"
        else:
            line += "".join(f", {name} {a} %" for name, a in zip(names, rest, strict=True))
        if len(together) > 1:
            line += f", ensemble {100 * record['ensemble_accuracy']:.2f} %"
        self._say(line)

    def _say(self, line: str) -> None:
        if self._shown:
            tqdm.write(line)
            sys.stdout.flush()


def summarise(run: Run, records: Sequence[Record], times: dict[str, float], commit: Any) -> Record:
    """The content of summary.json; accuracies are fractions, of the last epoch.

    Args:
      run: as assembled.
      records: all of metrics.jsonl.
      times: "compile_seconds" (to the end of the first step), "train_seconds" and "timed_steps"
        (all other steps), over all sessions of the run.
      commit: of the code, as `commit()` gave it when training began.
    """
    runs = []
    for seed in run.seeds:
        own = [r for r in records if r.get("seed", seed) == seed]  # older records have no seed
        runs.append({"seed": seed, **_accuracies(run, own)})
    if len(runs) == 1:
        every = runs[0]
    else:
        every = {
            "seeds": list(run.seeds),
            **{part: _over_seeds([r[part] for r in runs]) for part in _PARTS},
            **_spread("ensemble_test_accuracy", [r["ensemble_test_accuracy"] for r in runs]),
            "runs": runs,
        }
    seconds = times["train_seconds"]
    images = times["timed_steps"] * run.batch_size * len(runs)
    return {
        **every,
        "steps": run.total_steps,
        "epochs": run.total_steps / run.steps_per_epoch,
        "compile_seconds": times["compile_seconds"],
        "train_seconds": seconds,
        "images_per_second": images / seconds if seconds else None,
        "jax_version": jax.__version__,
        "versions": {
            "afd_jax": afd_jax.__version__,
            "flax": flax.__version__,
            "optax": optax.__version__,
        },
        "commit": commit,
        "device": _device(run),
    }


def _accuracies(run: Run, records: Sequence[Record]) -> Record:
    """Of one seed, by network."""
    test = [r for r in records if r["kind"] == "test"][-1]
    heldout = [r for r in records if r["kind"] == "heldout"]
    peers = state_shapes(run.cohort).peers

    nodes = [(p, i) for p, peer in enumerate(run.cohort.peers) for i in range(len(peer.nodes))]

    def network(k: int) -> Record:
        best = max(heldout, key=lambda r: r["accuracy"][k], default=None)
        p, index = nodes[k]
        params = {"params": peers[p].params["network"]}
        _, own, _ = single(run.cohort.peers[p].network, params, index)
        return {
            "name": run.cohort.nodes[k],
            "parameters": sum(x.size for x in jax.tree.leaves(own)),
            "test_accuracy": test["accuracy"][k],
            "heldout_accuracy": heldout[-1]["accuracy"][k] if heldout else None,
            "best_heldout_epoch": best["epoch"] if best else None,
        }

    every = [network(k) for k in range(len(nodes))]
    members, rest = every[: run.cohort.members], every[run.cohort.members :]
    twins = len(members) if run.cohort.alone else 0
    return {
        "networks": members,
        "alone": rest[:twins],
        "others": rest[twins:],
        "ensemble_test_accuracy": test["ensemble_accuracy"],
    }


def _over_seeds(runs: Sequence[Sequence[Record]]) -> list[Record]:
    """Means and deviations of networks, which each run has in the same order."""
    return [
        {
            "name": same[0]["name"],
            "parameters": same[0]["parameters"],
            **_spread("test_accuracy", [n["test_accuracy"] for n in same]),
        }
        for same in zip(*runs, strict=True)
    ]


def _spread(name: str, values: Sequence[float]) -> Record:
    """Mean and sample deviation."""
    return {name: statistics.mean(values), f"{name}_deviation": statistics.stdev(values)}


def table(summary: Record) -> str:
    """The summary's accuracies, a line per network."""
    alone = summary["alone"] or [None] * len(summary["networks"])
    others = summary.get("others", [])  # older folders have none
    before = [
        {**network, "name": f"generation {network['generation']}"}
        for network in summary.get("generations", [])
    ]
    several = len(summary["networks"]) > 1
    average = "mean of branches" if "branch" in summary["networks"][0]["name"] else "ensemble"
    every = summary["networks"] + others + before
    width = max(len(name) for name in [average, *(n["name"] for n in every)]) + 2
    head = f"{'network':{width}}{'parameters':>12}{'test accuracy':>16}"
    lines = [head + (f"{'the same alone':>17}" if summary["alone"] else "")]
    alone += [None] * len(others + before)
    for network, twin in zip(every, alone, strict=True):
        line = f"{network['name']:{width}}{network['parameters']:>12,}"
        line += _percent(network, "test_accuracy", 16)
        lines.append(line + (_percent(twin, "test_accuracy", 17) if twin else ""))
    if several:
        value = _percent(summary, "ensemble_test_accuracy", 16)
        lines.append(f"{average:{width}}{'':12}{value}")
    if "runs" in summary:
        lines.append(f"mean and deviation of the seeds {', '.join(map(str, summary['seeds']))}")
    return "\n".join(lines)


def _percent(record: Record, name: str, width: int) -> str:
    deviation = record.get(f"{name}_deviation")
    after = "" if deviation is None else f" ± {100 * deviation:.2f}"
    return f"{100 * record[name]:.2f}{after} %".rjust(width)


def _means(records: Sequence[Record], kind: str) -> list[Record]:
    """The records of one kind, averaged over seeds."""
    by_step: dict[int, list[Record]] = {}
    for record in records:
        if record["kind"] == kind:
            by_step.setdefault(record["step"], []).append(record)
    return [mean_record(same) for same in by_step.values()]


def plot_curves(run: Run, records: Sequence[Record], file: pathlib.Path) -> None:
    """Draws test accuracy and the losses over the epochs into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    test, train = (_means(records, kind) for kind in ("test", "train"))
    terms = sorted({k.split("/loss/")[1] for r in train for k in r if "/loss/" in k})
    figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncols": 2}
    cycle = run.cohort.members if run.cohort.alone else 10  # a twin has its original's color
    colors = [f"C{k % cycle}" for k in range(len(run.cohort.nodes))]
    epochs = [r["epoch"] for r in test]
    for k, node in enumerate(run.cohort.nodes):
        style = "-" if k < run.cohort.members else "--"
        values = [100 * r["accuracy"][k] for r in test]
        axes[0].plot(epochs, values, style, color=colors[k], label=f"{k} {node}", marker=".")
    if run.cohort.members > 1:
        ensemble = [100 * r["ensemble_accuracy"] for r in test]
        axes[0].plot(epochs, ensemble, ":", color="0.3", label="ensemble")
    axes[0].set(xlabel="epoch", ylabel="test accuracy, %")
    axes[0].legend(fontsize="small", **below)
    styles = ["-", "--", "-.", ":"]
    for k in range(run.cohort.members if run.cohort.alone else len(run.cohort.nodes)):
        for i, term in enumerate(terms):
            points = [(r["epoch"], r[f"{k}/loss/{term}"]) for r in train if f"{k}/loss/{term}" in r]
            if points:
                name = f"{k} {run.cohort.nodes[k]}: {term.replace('_', ' ')}"
                style = styles[i % len(styles)]
                axes[1].plot(*zip(*points, strict=True), style, color=colors[k], label=name)
    axes[1].set(xlabel="epoch", ylabel="training loss")
    axes[1].set_yscale("symlog", linthresh=1e-2)  # some methods' losses go below zero
    axes[1].legend(fontsize="x-small", **below)
    for axis in axes:
        axis.locator_params(axis="x", integer=True)
        axis.grid(alpha=0.3)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _total_loss(record: Record, k: int) -> float:
    return sum(
        v for name, v in record.items() if name.startswith(f"{k}/loss/") and "discr" not in name
    )


def _device(run: Run) -> str:
    first = run.parallel.devices[0]
    kind = f"{os.cpu_count()} cores" if first.platform == "cpu" else first.device_kind
    return f"{len(run.parallel.devices)} x {first.platform} ({kind}), {run.parallel.mode}"


def commit() -> Any:
    """The commit of the code that ran, if it runs from a git checkout."""
    here = pathlib.Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
