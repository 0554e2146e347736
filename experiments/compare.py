"""Sets methods beside each other that were trained under one recipe: a table, JSON and a figure.

  python -m experiments.compare experiments/results/NAME "DML=RUN,RUN,RUN" "AFD=RUN,RUN,RUN" ...

writes NAME.json and NAME.png. For each method and architecture: test accuracy of the last epoch,
averaged over its networks (or branches) within a seed; mean and sample deviation over the seeds.
"""

import json
import pathlib
import statistics
import sys
from typing import Any

import matplotlib
import numpy as np

from afd_jax.engine.build import numbered
from afd_jax.errors import SettingError
from afd_jax.runs.workdir import Workdir
from experiments.collect import collect, spread

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# What makes one recipe; the methods, and what their own losses need, differ.
RECIPE = ("data", "batch_size", "duration")


def compare(groups: dict[str, list[Workdir]]) -> dict[str, Any]:
    """Averages over seeds, per method and architecture.

    Raises:
      SettingError: if the runs of a method do not belong together, or the methods had different
        recipes or seeds.
    """
    collected = {name: collect(folders) for name, folders in groups.items()}
    first_name, first = next(iter(collected.items()))
    for name, result in collected.items():
        ours, theirs = (_recipe(r) for r in (result, first))
        for field, value in ours.items():
            if value != theirs[field]:
                remedy = f"differs from {first_name}'s, {theirs[field]!r}; train all alike"
                raise SettingError(f"{name}: {field}", value, remedy)
    return {
        "recipe": _recipe(first),
        "methods": {name: rows(result) for name, result in collected.items()},
        "runs": {name: result["runs"] for name, result in collected.items()},
        "configs": {name: result["config"] for name, result in collected.items()},
    }


def _recipe(result: dict[str, Any]) -> dict[str, Any]:
    config = result["config"]
    recipe = {field: config[field] for field in RECIPE}
    seeds = [run["seed"] for run in result["runs"]]
    return {**recipe, "optimizers.logit": config["optimizers"]["logit"], "seeds": seeds}


def rows(result: dict[str, Any]) -> dict[str, Any]:
    """Per architecture, accuracies of a seed's networks averaged; and the ensemble's.

    The branches of a network count as one, but for a leader.
    """
    given, runs = result["config"]["networks"], result["runs"]
    named = dict(zip(numbered(given), given, strict=True))
    architectures: dict[str, list[str]] = {}
    for name in (network["name"] for network in runs[0]["networks"]):
        own = given[0] if name.startswith("branch ") else f"{given[0]} {name}"
        architectures.setdefault(named.get(name, own), []).append(name)

    def mean(run: dict[str, Any], names: list[str]) -> float:
        return statistics.fmean(n["test_accuracy"] for n in run["networks"] if n["name"] in names)

    networks = {
        architecture: spread([mean(run, names) for run in runs])
        for architecture, names in architectures.items()
    }
    return {"networks": networks, "ensemble": result["ensemble_test_accuracy"]}


def table(result: dict[str, Any]) -> str:
    """The comparison as a Markdown table, in percent."""
    lines = ["| method | network | test accuracy | ensemble |", "|---|---|---|---|"]
    for name, method in result["methods"].items():
        for network, value in method["networks"].items():
            ensemble = _percent(method["ensemble"])
            lines.append(f"| {name} | {network} | {_percent(value)} | {ensemble} |")
    return "\n".join(lines)


def _percent(value: dict[str, Any]) -> str:
    deviation = "" if value["std"] is None else f" ± {100 * value['std']:.2f}"
    return f"{100 * value['mean']:.2f}{deviation} %"


def plot(result: dict[str, Any], file: pathlib.Path) -> None:
    """A line per method and architecture: each seed, mean and deviation."""
    rows = [
        (f"{name}: {network}", value)
        for name, method in result["methods"].items()
        for network, value in method["networks"].items()
    ]
    figure, axis = plt.subplots(figsize=(7, 0.45 * len(rows) + 1.2), layout="constrained")
    for y, (_, value) in enumerate(rows):
        axis.plot(
            100 * np.array(value["values"]), [y] * len(value["values"]), "o", color="C0", ms=4
        )
        spread_of = 100 * (value["std"] or 0)
        axis.errorbar(
            100 * value["mean"], y, xerr=spread_of, fmt="|", color="0.2", capsize=3, ms=14
        )
    axis.set_yticks(range(len(rows)), [label for label, _ in rows])
    axis.invert_yaxis()
    seeds = len(result["recipe"]["seeds"])
    axis.set_xlabel(f"test accuracy, %: {seeds} seeds, mean and deviation")
    axis.grid(alpha=0.3)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main(arguments: list[str]) -> int:
    """Reads the command line."""
    if len(arguments) < 2 or not all("=" in group for group in arguments[1:]):
        print(__doc__)
        return 2
    target = pathlib.Path(arguments[0])
    groups = dict(group.split("=", 1) for group in arguments[1:])
    folders = {n: [Workdir(pathlib.Path(f)) for f in runs.split(",")] for n, runs in groups.items()}
    try:
        result = compare(folders)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    target.parent.mkdir(parents=True, exist_ok=True)
    plot(result, target.with_name(f"{target.name}.png"))
    target.with_name(f"{target.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
