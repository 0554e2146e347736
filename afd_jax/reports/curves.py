"""The picture of a run: test accuracy and losses over its epochs."""

import pathlib
from collections.abc import Sequence
from typing import Any

from afd_jax.reports.facts import Facts, with_role
from afd_jax.reports.summary import Record, mean_record


def plot_curves(facts: Facts, records: Sequence[Record], file: pathlib.Path) -> None:
    """Draws test accuracy and the losses over the epochs into a PNG.

    Args:
      facts: as from `facts.graph_facts`.
      records: all of metrics.jsonl; several seeds are averaged.
      file: to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    test, train = (_means(records, kind) for kind in ("test", "train"))
    students = with_role(facts, "student")
    colours = {node["name"]: f"C{k % 10}" for k, node in enumerate(facts["nodes"])}
    for node in facts["nodes"]:  # a twin has its original's
        if node["role"] == "twin":
            colours[node["name"]] = colours[node["of"]]
    figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13), "ncols": 2}
    for name, colour in colours.items():
        points = [(r["epoch"], 100 * r["accuracy"][name]) for r in test if name in r["accuracy"]]
        style = "-" if name in students else "--"
        if len(points) == 1 < len(test):  # what is frozen has one accuracy for all epochs
            points = [(r["epoch"], points[0][1]) for r in test]
        axes[0].plot(*zip(*points, strict=True), style, color=colour, label=name, marker=".")
    if len(students) > 1:
        ensemble = [(r["epoch"], 100 * r["ensemble_accuracy"]) for r in test]
        axes[0].plot(*zip(*ensemble, strict=True), ":", color="0.3", label="ensemble")
    axes[0].set(xlabel="epoch", ylabel="test accuracy, %")
    axes[0].legend(fontsize="small", **below)
    styles = ["-", "--", "-.", ":"]
    for name in with_role(facts, "student", "ensemble"):
        for i, term in enumerate(_terms(train)):
            key = f"{name}/loss/{term}"
            line = [(r["epoch"], r[key]) for r in train if key in r]
            if line:
                label, style = f"{name}: {term.replace('_', ' ')}", styles[i % len(styles)]
                axes[1].plot(*zip(*line, strict=True), style, color=colours[name], label=label)
    axes[1].set(xlabel="epoch", ylabel="training loss")
    axes[1].set_yscale("symlog", linthresh=1e-2)  # some methods' losses go below zero
    axes[1].legend(fontsize="x-small", **below)
    for axis in axes:
        axis.locator_params(axis="x", integer=True)
        axis.grid(alpha=0.3)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _terms(train: Sequence[Record]) -> list[str]:
    return sorted({k.split("/loss/")[1] for r in train for k in r if "/loss/" in k})


def _means(records: Sequence[Record], kind: str) -> list[Any]:
    """The records of one kind, averaged over seeds."""
    by_step: dict[int, list[Record]] = {}
    for record in records:
        if record["kind"] == kind:
            by_step.setdefault(record["step"], []).append(record)
    return [mean_record(same) for same in by_step.values()]
