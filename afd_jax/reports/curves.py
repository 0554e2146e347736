"""The picture of a run over its epochs: accuracy, what learning together brought, maps, losses."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from afd_jax.reports.facts import Facts, with_role
from afd_jax.reports.style import QUIET, picture
from afd_jax.reports.summary import Record

Curve = tuple[list[float], np.ndarray]
"""Epochs, and values [epochs, seeds]."""

_NAMED = 6  # lines of a panel that its own legend may name without hiding them
FEW = 12  # epochs that get a marker each; a line through one point would not be seen


class Line(NamedTuple):
    """A line of a panel.

    Attributes:
      name: in the legend.
      curve: the line is its mean over the seeds.
      colour: of the line.
      dashed: for what is compared with a solid line of the same colour.
      band: whether to shade the range of the seeds.
    """

    name: str
    curve: Curve
    colour: str
    dashed: bool = False
    band: bool = False


class Panel(NamedTuple):
    """A panel.

    Attributes:
      label: of the vertical axis.
      lines: to draw.
      shown: values that the axis shows at least.
      level: of a horizontal line to compare with.
    """

    label: str
    lines: list[Line]
    shown: tuple[float, ...] = ()
    level: float | None = None


def plot_curves(facts: Facts, records: Sequence[Record], file: pathlib.Path) -> None:
    """Draws a run: mean over the seeds, and for the students the range between them.

    Panels: test accuracy; where there are twins, each network's accuracy minus its twin's; where
    there are several networks, how alike their last maps are; where there are discriminators, how
    often they are right; and one for each term of the loss. A network has the same colour in all.

    Args:
      facts: as from `facts.graph_facts`.
      records: all of metrics.jsonl.
      file: to write; PNG or SVG by its suffix.
    """
    panels = [draw(facts, records) for draw in (_accuracy, _gain, _alike, _critics)]
    panels = [panel for panel in (*panels, *_losses(facts, records)) if panel.lines]
    rows = (len(panels) + 1) // 2
    seeds = len({record["seed"] for record in records})
    last = max(record["epoch"] for record in records)
    # The legend above has three names in a line.
    head = 0.8 + 0.2 * max(0, -(-len(panels[0].lines) // 3) - 3)
    with picture(file, rows, 2, head + 2.6 * rows) as (figure, axes):
        for axis, panel in zip(axes.flat, panels, strict=False):
            _draw(axis, panel)
            axis.set_xlim(0, 1.03 * last or 1)
            own = {line.name for line in panel.lines}
            if not own <= {line.name for line in panels[0].lines} and len(own) <= _NAMED:
                axis.legend()
        for axis in axes.flat[len(panels) :]:
            axis.set_axis_off()
        for axis in axes.flat[max(len(panels) - 2, 0) : len(panels)]:
            axis.set_xlabel("epoch")
        figure.align_ylabels()
        handles, names = axes[0, 0].get_legend_handles_labels()
        title = f"mean of {seeds} seeds; shaded: their range" if seeds > 1 else None
        figure.legend(handles, names, loc="outside upper center", ncols=3, title=title)


def _draw(axis: Any, panel: Panel) -> None:
    if panel.level is not None:
        axis.axhline(panel.level, color="0.4", lw=1)
    # Earlier lines are wider, so that they are seen below later ones.
    widths = iter(np.linspace(3.4, 1.4, sum(not line.dashed for line in panel.lines)))
    for line in panel.lines:
        epochs, values = line.curve
        look: dict[str, Any] = (
            {"lw": 1.2, "linestyle": "--"} if line.dashed else {"lw": next(widths)}
        )
        look |= {"color": line.colour, "marker": "o" if len(epochs) <= FEW else "", "ms": 3.5}
        look["mfc"] = "white" if line.dashed else line.colour
        axis.plot(epochs, values.mean(1), label=line.name, **look)
        if line.band and values.shape[1] > 1:
            low, high = values.min(1), values.max(1)
            axis.fill_between(epochs, low, high, color=line.colour, alpha=0.12, lw=0)
            if len(epochs) == 1:  # a band needs two
                axis.vlines(epochs, low, high, color=line.colour, alpha=0.3)
    axis.update_datalim([(0, value) for value in panel.shown])
    axis.set_ylabel(panel.label)
    axis.locator_params(axis="x", integer=True)


def _accuracy(facts: Facts, records: Sequence[Record]) -> Panel:
    lines: list[Line] = []
    students = with_role(facts, "student")
    for name, colour in _colours(facts).items():
        epochs, values = curve(records, "test", "accuracy", name)
        own = name in students
        if len(epochs) == 1:  # what is frozen has one accuracy for all epochs
            epochs = sorted({r["epoch"] for r in records if r["kind"] == "test"})
            values = np.repeat(values, len(epochs), 0)
        lines.append(Line(name, (epochs, 100 * values), colour, dashed=not own, band=own))
    for field, name, dashed in (
        ("ensemble_accuracy", "ensemble", False),
        ("twin_ensemble_accuracy", "ensemble alone", True),
    ):
        epochs, values = curve(records, "test", field)
        if len(students) > 1 and epochs:
            lines.append(Line(name, (epochs, 100 * values), QUIET, dashed))
    return Panel("test accuracy, %", lines)


def _gain(facts: Facts, records: Sequence[Record]) -> Panel:
    colours = _colours(facts)
    lines: list[Line] = []
    for node in facts["nodes"]:
        if node["role"] == "twin":
            own = node["of"]
            epochs, together = curve(records, "test", "accuracy", own)
            _, alone = curve(records, "test", "accuracy", node["name"])
            gain = 100 * (together - alone)
            lines.append(Line(own, (epochs, gain), colours[own], band=True))
    return Panel("accuracy minus alone, points", lines, level=0)


def _alike(facts: Facts, records: Sequence[Record]) -> Panel:
    originals = {n["name"]: n["of"] for n in facts["nodes"] if n["role"] == "twin"}
    pairs = dict.fromkeys(p for r in records for p in r.get("similarity", {}))
    lines: list[Line] = []
    colours: dict[tuple[str, ...], str] = {}
    # Students before their twins, who have their colours. A pair's are not those of a network.
    for pair in sorted(pairs, key=lambda p: p.split(", ")[0] in originals):
        names = pair.split(", ")
        own = tuple(originals.get(name, name) for name in names)
        colour = colours.setdefault(own, f"C{(4 + len(colours)) % 10}")
        twins = names[0] in originals
        found = curve(records, "test", "similarity", pair, "cka")
        lines.append(Line(pair, found, colour, dashed=twins, band=not twins))
    return Panel("likeness of last maps (CKA)", lines, shown=(0, 1))


def _critics(facts: Facts, records: Sequence[Record]) -> Panel:
    lines: list[Line] = []
    for name in with_role(facts, "student"):
        for what in ("real", "fake"):
            epochs, values = curve(records, "train", f"{name}/{what}_accuracy")
            if epochs:
                found, colour = (epochs, 100 * values), _colours(facts)[name]
                lines.append(Line(f"{name}: {what}", found, colour, dashed=what == "fake"))
    return Panel("discriminator is right, %", lines, shown=(0, 100), level=50)


def _losses(facts: Facts, records: Sequence[Record]) -> list[Panel]:
    terms = sorted({k.split("/loss/")[1] for r in records for k in r if "/loss/" in k})
    names, colours = with_role(facts, "student", "ensemble"), _colours(facts)
    return [
        Panel(
            f"{term.replace('_', ' ')} loss",
            [
                Line(name, found, colours[name], band=True)
                for name in names
                if (found := curve(records, "train", f"{name}/loss/{term}"))[0]
            ],
            shown=(0,),
        )
        for term in terms
    ]


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
