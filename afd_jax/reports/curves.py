"""The picture of a run over its epochs: accuracy, what learning together brought, maps, losses."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from afd_jax.reports.facts import Facts, with_role
from afd_jax.reports.summary import Record

Curve = tuple[list[float], np.ndarray]
"""Epochs, and values [epochs, seeds]."""


def plot_curves(facts: Facts, records: Sequence[Record], file: pathlib.Path) -> None:
    """Draws a run into a PNG: mean over the seeds, and the range between them.

    Panels: test accuracy; where there are twins, each network's accuracy minus its twin's; where
    there are several networks, how alike their last maps are; losses; where there are
    discriminators, how often they are right.

    Args:
      facts: as from `facts.graph_facts`.
      records: all of metrics.jsonl.
      file: to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    every = {draw: draw(facts, records) for draw in (_accuracy, _gain, _alike, _critics, _losses)}
    panels = {draw: panel for draw, panel in every.items() if panel}
    rows = (len(panels) + 1) // 2
    figure, axes = plt.subplots(
        rows, 2, figsize=(11, 4.2 * rows), layout="constrained", squeeze=False
    )
    for axis, (draw, (label, lines)) in zip(axes.flat, panels.items(), strict=False):
        for name, (epochs, values), style in lines:
            (line,) = axis.plot(epochs, values.mean(1), label=name, **style)
            if values.shape[1] > 1:
                low, high = values.min(1), values.max(1)
                axis.fill_between(epochs, low, high, color=line.get_color(), alpha=0.12, lw=0)
        axis.set(xlabel="epoch", ylabel=label)
        axis.locator_params(axis="x", integer=True)
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small", ncols=1 + (len(lines) > 4))
        if draw is _gain:
            axis.axhline(0, color="0.4", lw=1)
        if draw is _losses:
            axis.set_yscale("symlog", linthresh=1e-2)  # some methods' losses go below zero
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    seeds = len({record["seed"] for record in records})
    if seeds > 1:
        figure.suptitle(f"mean and range of {seeds} seeds", fontsize="medium")
    figure.savefig(file, dpi=120)
    plt.close(figure)


Look = dict[str, Any]
Line = tuple[str, Curve, Look]
Panel = tuple[str, list[Line]]


def _accuracy(facts: Facts, records: Sequence[Record]) -> Panel | None:
    lines: list[Line] = []
    students = with_role(facts, "student")
    for name, colour in _colours(facts).items():
        epochs, values = curve(records, "test", "accuracy", name)
        look: Look = {"color": colour, "linestyle": "-" if name in students else "--"}
        if len(epochs) == 1:  # what is frozen has one accuracy for all epochs
            epochs = sorted({r["epoch"] for r in records if r["kind"] == "test"})
            values = np.repeat(values, len(epochs), 0)
        lines.append((name, (epochs, 100 * values), look))
    for field, name, style in (
        ("ensemble_accuracy", "ensemble", "-"),
        ("twin_ensemble_accuracy", "ensemble alone", "--"),
    ):
        epochs, values = curve(records, "test", field)
        if len(students) > 1 and epochs:
            look = {"color": "0.35", "linestyle": style, "lw": 1}
            lines.append((name, (epochs, 100 * values), look))
    return "test accuracy, %", lines


def _gain(facts: Facts, records: Sequence[Record]) -> Panel | None:
    colours = _colours(facts)
    lines: list[Line] = []
    for node in facts["nodes"]:
        if node["role"] == "twin":
            own = node["of"]
            epochs, together = curve(records, "test", "accuracy", own)
            _, alone = curve(records, "test", "accuracy", node["name"])
            lines.append((own, (epochs, 100 * (together - alone)), {"color": colours[own]}))
    return ("accuracy minus the same alone, points", lines) if lines else None


def _alike(facts: Facts, records: Sequence[Record]) -> Panel | None:
    originals = {n["name"]: n["of"] for n in facts["nodes"] if n["role"] == "twin"}
    pairs = dict.fromkeys(p for r in records for p in r.get("similarity", {}))
    lines: list[Line] = []
    colours: dict[tuple[str, ...], str] = {}
    # Students before their twins, who have their colours.
    for pair in sorted(pairs, key=lambda p: p.split(", ")[0] in originals):
        names = pair.split(", ")
        own = tuple(originals.get(name, name) for name in names)
        look: Look = {"color": colours.setdefault(own, f"C{len(colours) % 10}")}
        look["linestyle"] = "--" if names[0] in originals else "-"
        lines.append((pair, curve(records, "test", "similarity", pair, "cka"), look))
    return ("likeness of the last maps (linear CKA)", lines) if lines else None


def _critics(facts: Facts, records: Sequence[Record]) -> Panel | None:
    lines: list[Line] = []
    for name in with_role(facts, "student"):
        for what, style in (("real", "-"), ("fake", "--")):
            epochs, values = curve(records, "train", f"{name}/{what}_accuracy")
            if epochs:
                look: Look = {"color": _colours(facts)[name], "linestyle": style}
                lines.append((f"{name}: {what}", (epochs, 100 * values), look))
    return ("maps that the discriminator tells right, %", lines) if lines else None


def _losses(facts: Facts, records: Sequence[Record]) -> Panel | None:
    styles = ["-", "--", "-.", ":"]
    terms = sorted({k.split("/loss/")[1] for r in records for k in r if "/loss/" in k})
    lines: list[Line] = []
    for name in with_role(facts, "student", "ensemble"):
        for i, term in enumerate(terms):
            found = curve(records, "train", f"{name}/loss/{term}")
            if found[0]:
                style = styles[i % len(styles)]
                look: Look = {"color": _colours(facts)[name], "linestyle": style}
                lines.append((f"{name}: {term.replace('_', ' ')}", found, look))
    return ("training loss", lines) if lines else None


def _colours(facts: Facts) -> dict[str, str]:
    """By node; a twin has its original's."""
    colours = {node["name"]: f"C{k % 10}" for k, node in enumerate(facts["nodes"])}
    twins = (node for node in facts["nodes"] if node["role"] == "twin")
    return colours | {node["name"]: colours[node["of"]] for node in twins}


def curve(records: Sequence[Record], kind: str, *path: str) -> Curve:
    """The value under a path of keys, over the epochs that have it for all seeds."""
    seeds = sorted({r["seed"] for r in records})
    found: dict[float, dict[int, float]] = {}
    for record in records:
        value: Any = record if record["kind"] == kind else {}
        for key in path:
            value = value.get(key, {})
        if value != {}:
            found.setdefault(record["epoch"], {})[record["seed"]] = value
    whole = {epoch: own for epoch, own in sorted(found.items()) if len(own) == len(seeds)}
    return list(whole), np.array([[own[s] for s in seeds] for own in whole.values()])
