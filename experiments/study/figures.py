"""A study's results as figures."""

import itertools
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from afd_jax.reports.paired import Difference
from afd_jax.reports.style import QUIET, picture
from experiments.study.plan import Block, Study
from experiments.study.records import Records
from experiments.study.tables import Row, points, rows

OWN = "AFD"  # settings of this name, as "AFD" or "AFD, offline", stand out
OWN_COLOUR = "C2"
_LEGEND = 110  # letters beside each other, of the line and the name of each curve


def differences(study: Study, results: Records, file: pathlib.Path) -> None:
    """Draws each setting's difference from the baseline with its 95 % interval, a panel per block.

    All panels have the same axis, with zero in the middle.

    Args:
      study: to draw.
      results: of the study.
      file: SVG to write.
    """
    tables = [(block, [r for r in rows(block, results) if r.difference]) for block in study.blocks]
    tables = [(block, table) for block, table in tables if table]
    if not tables:
        return
    sizes = [len({row.setting for row in table}) for _, table in tables]
    colours = _colours([row.network for _, table in tables for row in table])
    limit = _limit([row.difference for _, table in tables for row in table if row.difference])
    height = 0.8 + 0.55 * len(sizes) + 0.27 * sum(sizes)
    shape = {"height_ratios": sizes, "sharex": True}
    with picture(file, len(tables), 1, height, **shape) as (figure, axes):
        for axis, (block, table) in zip(axes[:, 0], tables, strict=True):
            _panel(axis, block, table, colours, limit)
        axes[-1, 0].set_xlim(-limit, limit)
        axes[-1, 0].set_xlabel("difference in test accuracy, points: mean and 95 % interval")
        first = axes[0, 0]
        for network, colour in colours.items():
            first.plot([], [], color=colour, lw=2, label=network)
        first.plot([], [], "o", color=QUIET, label="interval without 0")
        first.plot([], [], "o", color=QUIET, mfc="white", label="interval with 0")
        figure.legend(loc="outside upper center", ncols=min(len(colours) + 2, 5))


def _limit(values: Sequence[Difference]) -> float:
    """The limit of the axis: enough for most intervals, so that no outlier hides the rest."""
    ends = [max(abs(v.low or v.mean), abs(v.high or v.mean)) for v in values]
    most = 4 * statistics.median(ends)
    return 1.1 * max(end for end in ends if end <= most or end == min(ends)) or 1.0


def _panel(
    axis: Any, block: Block, table: Sequence[Row], colours: Mapping[str, str], limit: float
) -> None:
    """A line of text per setting; its networks stand closely below each other."""
    axis.axvline(0, color="0.4", lw=1)
    settings = [[*own] for _, own in itertools.groupby(table, lambda row: row.setting)]
    for y, own in enumerate(settings):
        for n, row in enumerate(own):
            assert row.difference is not None
            place = y + 0.3 * (n - (len(own) - 1) / 2)
            _interval(axis, row.difference, place, colours[row.network], limit)
    names = [own[0].setting for own in settings]
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelbottom=True)
    axis.grid(visible=False, axis="y")
    for y, (name, label) in enumerate(zip(names, axis.get_yticklabels(), strict=True)):
        if _own(name):
            label.set(color=OWN_COLOUR, weight="bold")
            axis.axhspan(y - 0.5, y + 0.5, color=OWN_COLOUR, alpha=0.08, lw=0)
    counts = sorted({row.difference.count for row in table if row.difference})
    seeds = "-".join(str(c) for c in (counts if len(counts) < 2 else (counts[0], counts[-1])))
    axis.set_title(f"{block.name}: difference from {block.baseline}, {seeds} seeds")


def _interval(axis: Any, value: Difference, y: float, colour: str, limit: float) -> None:
    if abs(value.mean) > limit:
        side = -1 if value.mean < 0 else 1
        end = 0.98 * side * limit
        axis.plot(end, y, "<" if side < 0 else ">", color=colour)
        align = "left" if side < 0 else "right"
        look = {"va": "center", "ha": align, "fontsize": "small"}
        axis.annotate(
            points(value).strip("*"), (end, y), (-8 * side, 0), textcoords="offset points", **look
        )
        return
    if value.low is not None and value.high is not None:
        axis.plot([value.low, value.high], [y, y], color=colour, lw=1.6)
    axis.plot(value.mean, y, "o", color=colour, mfc=colour if value.told else "white", ms=5)


def _own(setting: str) -> bool:
    return setting.split(",")[0] == OWN


def similarity(block: Block, results: Records, file: pathlib.Path) -> None:
    """Draws how similar the maps of two networks become over the epochs, by up to four measures.

    Args:
      block: to draw; settings that do not train two networks are left out.
      results: of the study.
      file: SVG to write.
    """
    measures = {
        "cka": ("CKA (1: equal up to rotation)", (0, 1)),
        "cosine": ("cosine", (0, 1)),
        "l1": ("mean absolute difference", (0,)),
        "l2": ("mean squared difference", (0,)),
    }
    curves = {
        measure: {s.name: over_time(block, results, s.name, measure) for s in block.settings}
        for measure in measures
    }
    curves = {measure: own for measure, own in curves.items() if any(own.values())}
    if not curves:
        return
    count = (len(curves) + 1) // 2
    drawn = [s.name for s in block.settings if any(own[s.name] for own in curves.values())]
    colours = _colours(drawn)
    again = [name for n, name in enumerate(drawn) if colours[name] in [*colours.values()][:n]]
    with picture(file, count, min(len(curves), 2), 0.9 + 2.9 * count) as (figure, axes):
        for axis, (measure, own) in zip(axes.flat, curves.items(), strict=False):
            label, shown = measures[measure]
            axis.update_datalim([(0, value) for value in shown])
            axis.set_ylabel(label)
            for setting, curve in own.items():
                if curve:  # ours is wide and below, so that it hides none
                    look = {"lw": 4, "zorder": 1.9} if _own(setting) else {"lw": 1.2}
                    x, y = zip(*curve, strict=True)
                    form = "s--" if setting in again else "o-"  # of a colour that is there already
                    axis.plot(x, y, form, color=colours[setting], ms=3.5, label=setting, **look)
        for axis in axes[-1]:
            axis.set_xlabel("epoch")
        for axis in axes.flat[len(curves) :]:
            axis.set_axis_off()
        handles, labels = axes[0, 0].get_legend_handles_labels()
        columns = max(1, min(5, _LEGEND // (6 + max(map(len, labels)))))
        figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def _colours(names: Sequence[str]) -> dict[str, str]:
    """By name of a setting or network; only `OWN` has the colour that stands out."""
    others = itertools.cycle(f"C{n}" for n in (0, 1, 4, 5, 6, 7, 8, 9, 3))
    return {n: OWN_COLOUR if _own(n) else next(others) for n in dict.fromkeys(names)}


def over_time(
    block: Block, results: Records, setting: str, measure: str
) -> list[tuple[float, float]]:
    """(epoch, mean over the seeds) of a measure of similarity, for settings of two networks."""
    points: dict[float, list[float]] = {}
    for record in results.of(block.name, setting):
        for each in record["curve"]:
            pairs = list(each.get("similarity", {}).values())
            if len(pairs) == 1 and measure in pairs[0]:
                points.setdefault(each["epoch"], []).append(pairs[0][measure])
    return [(epoch, sum(values) / len(values)) for epoch, values in sorted(points.items())]
