"""Gathers finished runs of one experiment into a JSON file and a figure: mean and deviation.

  python experiments/collect.py experiments/results/NAME RUN_DIR [RUN_DIR ...]

writes NAME.json and NAME.png. Accuracies are those of the last epoch, as fractions.
"""

import json
import pathlib
import sys
from typing import Any

import matplotlib
import numpy as np

from afd_jax.errors import SettingError
from afd_jax.runs.metrics import read_metrics
from afd_jax.runs.workdir import Workdir, read_json, require_same

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def spread(values: list[float]) -> dict[str, Any]:
    """Mean and sample deviation (none for a single run)."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": deviation, "values": values}


def collect(folders: list[Workdir]) -> dict[str, Any]:
    """Averages over runs of different seeds and otherwise equal settings.

    Raises:
      SettingError: if a folder holds no finished run, or the runs do not belong together.
    """
    for folder in folders:
        if not folder.summary.is_file():
            raise SettingError("RUN_DIR", str(folder.path), "no finished run (no summary.json)")
    first = folders[0]
    configs = [folder.settings() for folder in folders]
    data = [read_json(folder.data) if folder.data.is_file() else {} for folder in folders]
    for folder, config, facts in zip(folders, configs, data):
        require_same(config, configs[0], first.path, but=["config.seed", "config.seeds"])
        kinds, first_kinds = (
            [(t["name"], t["method"]) for t in f.noted_teachers()] for f in (folder, first)
        )
        if kinds != first_kinds:
            remedy = f"was taught by {kinds} (name and method), {first.path} by {first_kinds}"
            raise SettingError("RUN_DIR", str(folder.path), remedy)
        if facts != data[0]:
            remedy = f"was trained on other data than {first.path}"
            raise SettingError("RUN_DIR", str(folder.path), remedy)
    summaries = [run for folder in folders for run in _seeds(read_json(folder.summary))]
    seeds = [summary["seed"] for summary in summaries]
    if len(set(seeds)) < len(seeds):
        raise SettingError("RUN_DIR", seeds, "the runs must have different seeds")
    configs[0]["data"].pop("data_dir")
    for field in ("seed", "seeds"):
        configs[0].pop(field)
    # What they are, not where they lie.
    configs[0]["teachers"] = [{k: t[k] for k in ("name", "method")} for t in first.noted_teachers()]
    curves = [
        [
            {key: r[key] for key in ("epoch", "accuracy", "ensemble_accuracy")}
            for r in read_metrics(folder.metrics)
            if r["kind"] == "test" and r["seed"] == run["seed"]
        ]
        for folder in folders
        for run in _seeds(read_json(folder.summary))
    ]
    for seed, curve in zip(seeds, curves):
        if [point["epoch"] for point in curve] != [point["epoch"] for point in curves[0]]:
            remedy = f"has evaluations at other epochs than the first run, {first.path}"
            raise SettingError("RUN_DIR, seed", seed, remedy)
    return {
        "config": configs[0],
        "test_accuracy": {
            name: spread([_accuracies(summary)[name] for summary in summaries])
            for name in _accuracies(summaries[0])
        },
        "ensemble_test_accuracy": spread([s["ensemble_test_accuracy"] for s in summaries]),
        "runs": summaries,
        "curves": curves,
    }


def _seeds(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """A summary for each seed of a run."""
    common = {key: value for key, value in summary.items() if key not in ("runs", "seeds")}
    return [{**common, **run} for run in summary.get("runs", [summary])]


def _accuracies(summary: dict[str, Any]) -> dict[str, float]:
    """By node."""
    every = [node for part in ("networks", "twins", "others") for node in summary[part]]
    return {node["name"]: node["test_accuracy"] for node in every}


def plot(result: dict[str, Any], file: pathlib.Path) -> None:
    """Test accuracy over epochs: mean over seeds, and the range between them."""
    figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
    epochs = [point["epoch"] for point in result["curves"][0]]
    first = result["runs"][0]
    students = [node["name"] for node in first["networks"]]
    of = {node["name"]: node["of"] for node in first["twins"]}
    colours: dict[str, str] = {}
    for name in result["test_accuracy"]:
        # A twin has its original's colour; what is frozen has one accuracy for all epochs.
        colours[name] = colours[of[name]] if name in of else f"C{len(colours) % 10}"
        whole = [(run[0]["accuracy"], run) for run in result["curves"]]
        curves = 100 * np.array(
            [[(once | p["accuracy"])[name] for p in run] for once, run in whole]
        )
        style, colour = "-" if name in students else "--", colours[name]
        axis.plot(epochs, curves.mean(0), style, color=colour, label=name, marker=".")
        axis.fill_between(epochs, curves.min(0), curves.max(0), color=colour, alpha=0.15)
    ensemble = 100 * np.array([[p["ensemble_accuracy"] for p in run] for run in result["curves"]])
    axis.plot(epochs, ensemble.mean(0), ":", color="0.3", label="ensemble")
    axis.set(xlabel="epoch", ylabel="test accuracy, %")
    axis.locator_params(axis="x", integer=True)
    axis.set_title(f"mean and range of {len(result['runs'])} seeds", fontsize="medium")
    axis.legend(fontsize="small")
    axis.grid(alpha=0.3)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main(arguments: list[str]) -> int:
    """Reads the command line."""
    if len(arguments) < 2:
        print(__doc__)
        return 2
    target, *folders = map(pathlib.Path, arguments)
    try:
        result = collect([Workdir(folder) for folder in folders])
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not with_suffix: a name may hold a dot.
    plot(result, target.with_name(f"{target.name}.png"))
    target.with_name(f"{target.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    for name, value in result["test_accuracy"].items():
        deviation = "" if value["std"] is None else f" +- {100 * value['std']:.2f}"
        print(f"{name:20} {100 * value['mean']:.2f}{deviation} %")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
