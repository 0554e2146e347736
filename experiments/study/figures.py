"""A study's results as figures."""

import pathlib
import statistics
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from afd_jax.reports.paired import Difference
from experiments.study.plan import Block, Study
from experiments.study.records import Records
from experiments.study.tables import Row, points, rows


def differences(study: Study, results: Records, file: pathlib.Path) -> None:
    """Draws each setting's difference from the baseline with its 95 % interval, a panel per block.

    Args:
      study: to draw.
      results: of the study.
      file: PNG to write.
    """
    tables = [(block, rows(block, results)) for block in study.blocks]
    tables = [(b, table) for b, table in tables if any(r.difference for r in table)]
    if not tables:
        return
    heights = [0.5 + 0.24 * sum(r.difference is not None for r in table) for _, table in tables]
    figure, axes = plt.subplots(
        len(tables),
        1,
        figsize=(8, 0.9 + sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
        sharex=True,
    )
    networks = list(dict.fromkeys(r.network for _, table in tables for r in table))
    limit = _limit([r.difference for _, table in tables for r in table if r.difference])
    for axis, (block, table) in zip(axes[:, 0], tables):
        _panel(axis, block, [r for r in table if r.difference], networks, limit)
    axes[-1, 0].set_xlim(-limit, limit)
    axes[-1, 0].set_xlabel("difference in test accuracy, points: mean and 95 % interval")
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _limit(values: Sequence[Difference]) -> float:
    """The limit of the axis: enough for most intervals, so that no outlier hides the rest."""
    ends = [max(abs(v.low or v.mean), abs(v.high or v.mean)) for v in values]
    most = 4 * statistics.median(ends)
    return 1.1 * max(end for end in ends if end <= most or end == min(ends)) or 1.0


def _panel(
    axis: plt.Axes, block: Block, table: Sequence[Row], networks: Sequence[str], limit: float
) -> None:
    axis.axvline(0, color="0.4", lw=1)
    seen = set()
    for y, row in enumerate(table):
        value, colour = row.difference, f"C{networks.index(row.network) % 10}"
        assert value is not None
        label = row.network if row.network not in seen else None
        seen.add(row.network)
        if abs(value.mean) > limit:
            side = -1 if value.mean < 0 else 1
            axis.plot(0.98 * side * limit, y, "<" if side < 0 else ">", color=colour, label=label)
            words, align = f"  {points(value).strip('*')}  ", "left" if side < 0 else "right"
            axis.text(0.98 * side * limit, y, words, va="center", ha=align, fontsize="small")
            continue
        if value.low is not None and value.high is not None:
            axis.plot([value.low, value.high], [y, y], color=colour, lw=1.6, alpha=0.7)
        face = colour if value.told else "white"
        axis.plot(value.mean, y, "o", color=colour, mfc=face, ms=5, label=label)
    names = [r.setting if r.setting != p else "" for r, p in _with_previous(table)]
    axis.set_yticks(range(len(table)), names)
    axis.set_ylim(len(table) - 0.5, -0.5)
    axis.tick_params(axis="x", labelbottom=True)
    for y, (row, previous) in enumerate(_with_previous(table)):
        if y and row.setting != previous:
            axis.axhline(y - 0.5, color="0.9", lw=0.8)
    counts = sorted({r.difference.count for r in table if r.difference})
    seeds = "-".join(str(c) for c in (counts if len(counts) < 2 else (counts[0], counts[-1])))
    title = f"{block.name}: minus {block.baseline}, {seeds} seeds; filled: interval without 0"
    axis.set_title(title, fontsize="medium", loc="left")
    axis.legend(fontsize="small", loc="best")
    axis.grid(axis="x", alpha=0.3)


def _with_previous(table: Sequence[Row]) -> list[tuple[Row, str]]:
    return list(zip(table, ["", *(r.setting for r in table)]))


def similarity(block: Block, results: Records, file: pathlib.Path) -> None:
    """Draws how similar the maps of two networks become over the epochs, by four measures.

    Args:
      block: to draw; settings that do not train two networks are left out.
      results: of the study.
      file: PNG to write.
    """
    measures = {
        "cka": "CKA (1: equal up to rotation)",
        "cosine": "cosine",
        "l1": "mean absolute difference",
        "l2": "mean squared difference",
    }
    if not any(over_time(block, results, setting.name, "cka") for setting in block.settings):
        return
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.5), layout="constrained", sharex=True)
    for axis, (measure, label) in zip(axes.flat, measures.items()):
        for n, setting in enumerate(block.settings):
            curve = over_time(block, results, setting.name, measure)
            if curve:
                style = "-" if n < 10 else "--"
                axis.plot(*zip(*curve), style, marker=".", color=f"C{n % 10}", label=setting.name)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    figure.savefig(file, dpi=120)
    plt.close(figure)


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
