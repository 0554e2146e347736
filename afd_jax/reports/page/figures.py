"""Panels as SVG: drawn by Matplotlib, coloured by the page's style sheet.

Colours are drawn as stand-ins and become CSS variables, so that one picture suits light and dark.
"""

import dataclasses
import html
import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from afd_jax.reports.page.series import PALETTE, Panel, as_json, last

_STAND_INS = {f"#0000{k + 0x10:02x}": f"var(--s{k})" for k in range(PALETTE)}
_STAND_INS |= {"#000020": "var(--ink)", "#000021": "var(--faint)", "#000022": "var(--mid)"}
_INK, _FAINT, _GREY = "#000020", "#000021", "#000022"
_WIDTH, _HEIGHT = 4.7, 2.9  # inches; about the width of a phone at 72 units each
_DIRECT = 6  # so many curves have their names beside their ends
_LONGEST = 18  # and so long names


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawn panel.

    Attributes:
      title: of the panel.
      svg: well-formed, with identifiers that no other figure of the page has.
      legend: per curve: name, colour as CSS, dashes as `stroke-dasharray`, last value in words.
      points: as from `series.as_json`; empty if there is nothing to point at.
      frame: left, top, width and height of the frame in the SVG's units, and the epochs at its
        sides.
      digits: behind the point.
    """

    title: str
    svg: str
    legend: Sequence[Mapping[str, str]] = ()
    points: Sequence[dict[str, Any]] = ()
    frame: Sequence[float] = ()
    digits: int = 3


_DASHES = {"-": "", "--": "6 3", ":": "2 3", "-.": "7 3 2 3"}


def _line(dashes: str) -> Any:
    """Matplotlib's form of dashes, which it counts in widths of the line."""
    return (0, tuple(float(n) / 1.8 for n in dashes.split())) if dashes else "-"


def _colour(number: int | None) -> str:
    return _GREY if number is None else f"#0000{number % PALETTE + 0x10:02x}"


def _axes(width: float = _WIDTH, height: float = _HEIGHT) -> Any:
    """A figure of its own, outside pyplot's global state, and its axes."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), dpi=72, layout="constrained")
    axes = canvas.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.grid(axis="y", color=_FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(color=_FAINT, labelcolor=_INK, labelsize=10, length=3)
    return canvas, axes


def draw(panel: Panel, prefix: str) -> Figure:
    """Draws curves over epochs: means over the seeds, and the range between them.

    Args:
      panel: what to draw.
      prefix: of all identifiers in the SVG.
    """
    canvas, axes = _axes()
    lowest = min(float(s.values.min()) for s in panel.series)
    if panel.log and lowest > 0:
        axes.set_yscale("log")
    if panel.zero:
        axes.axhline(0, color=_GREY, linewidth=1)
    for k, s in enumerate(panel.series):
        colour, epochs = _colour(s.colour), np.asarray(s.epochs)
        look = {"color": colour, "gid": f"series-{k}"}
        if s.values.shape[1] > 1:
            low, high = s.values.min(1), s.values.max(1)
            axes.fill_between(epochs, low, high, alpha=0.13, linewidth=0, **look)
        marker = "o" if len(epochs) == 1 else None
        axes.plot(
            epochs,
            s.values.mean(1),
            linestyle=_line(_DASHES[s.style]),
            linewidth=1.8,
            marker=marker,
            **look,
        )
    axes.set_xlabel("epoch", color=_INK, fontsize=10)
    axes.margins(x=0.01)
    axes.locator_params(axis="x", nbins=6, integer=True)
    if len(panel.series) <= _DIRECT and all(len(s.name) <= _LONGEST for s in panel.series):
        _name_ends(canvas, axes, panel)
    canvas.draw_without_rendering()
    box, (left, right) = axes.get_position(), axes.get_xlim()
    width, height = 72 * _WIDTH, 72 * _HEIGHT
    frame = [box.x0 * width, (1 - box.y1) * height, box.width * width, box.height * height]
    legend = [
        {
            "name": s.name,
            "colour": _STAND_INS[_colour(s.colour)],
            "dashes": _DASHES[s.style],
            "last": f"{last(s):.{panel.digits}f}",
        }
        for s in panel.series
    ]
    numbers = [round(float(n), 4) for n in (*frame, left, right)]
    svg = themed(canvas, prefix, panel.title)
    return Figure(panel.title, svg, legend, as_json(panel), numbers, panel.digits)


def _name_ends(canvas: Any, axes: Any, panel: Panel) -> None:
    """Writes each curve's name behind its end; names that would touch move apart."""
    canvas.draw_without_rendering()
    heights = [axes.transData.transform((s.epochs[-1], last(s)))[1] for s in panel.series]
    floor, ceiling = axes.bbox.y0, axes.bbox.y1
    step = 11  # points between two lines of text
    for k, place in zip(
        np.argsort(heights), spread_out(sorted(heights), step, floor, ceiling), strict=True
    ):
        s = panel.series[k]
        axes.annotate(
            s.name.replace("$", r"\$"),
            (1.015, (place - floor) / (ceiling - floor)),
            xycoords="axes fraction",
            color=_colour(s.colour),
            fontsize=10,
            va="center",
            gid=f"series-{k}",
        )


def spread_out(places: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Moves sorted places apart until they are a step from each other, as near as can be.

    >>> spread_out([1.0, 1.0, 5.0], 2.0, 0.0, 10.0)
    [0.0, 2.0, 5.0]
    """
    # Neighbours that touch form a block, which stands at the middle of what its members want.
    blocks: list[list[float]] = []

    def middle(block: Sequence[float]) -> float:
        wanted = sum(block) / len(block)
        half = step * (len(block) - 1) / 2
        return max(low + half, min(high - half, wanted))

    for place in places:
        blocks.append([place])
        while (
            len(blocks) > 1
            and middle(blocks[-1]) - middle(blocks[-2])
            < step * (len(blocks[-1]) + len(blocks[-2])) / 2
        ):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [middle(b) + step * (k - (len(b) - 1) / 2) for b in blocks for k in range(len(b))]


def reliability(
    nodes: Mapping[str, Mapping[str, Any]],
    looks: Mapping[str, tuple[int | None, str]],
    prefix: str,
) -> Figure:
    """Accuracy over confidence, with a point per bin that holds images.

    Args:
      nodes: of an analysis, by name.
      looks: number of a colour, and style of the line, by name.
      prefix: of all identifiers in the SVG.
    """
    canvas, axes = _axes(_WIDTH, 3.8)
    axes.plot([0, 100], [0, 100], color=_GREY, linewidth=1, linestyle=(0, (2, 2)))
    legend = []
    for k, (name, node) in enumerate(nodes.items()):
        bins = [b for b in node["reliability"] if b["count"]]
        number, style = looks[name]
        colour, dashes = _colour(number), _DASHES[style]
        marker = "so^Dv"[k % 5]
        share = np.array([b["count"] for b in bins]) / max(1, sum(b["count"] for b in bins))
        x, y = ([100 * b[field] for b in bins] for field in ("confidence", "accuracy"))
        axes.plot(x, y, color=colour, linewidth=1.4, linestyle=_line(dashes), gid=f"series-{k}")
        look = {"color": colour, "marker": marker, "linewidth": 0, "gid": f"series-{k}"}
        axes.scatter(x, y, s=12 + 90 * share, alpha=0.85, **look)
        words = f"ECE {100 * node['ece']:.2f}"
        legend.append(
            {"name": name, "colour": _STAND_INS[colour], "dashes": dashes} | {"last": words}
        )
    axes.set(xlim=(0, 101), ylim=(0, 102))
    axes.set_xlabel("confidence, %", color=_INK, fontsize=10)
    axes.set_ylabel("accuracy, %", color=_INK, fontsize=10)
    title = "Reliability: accuracy over confidence"
    return Figure(title, themed(canvas, prefix, title), legend)


def themed(canvas: Any, prefix: str, title: str) -> str:
    """A figure as SVG for the inside of a page: colours as CSS variables, sizes left to the page.

    Args:
      canvas: Matplotlib's figure, drawn in stand-in colours.
      prefix: of all identifiers, as those of one page must differ.
      title: read out in place of the picture.
    """
    import matplotlib

    file = io.StringIO()
    # Text stays text, and the same figure is the same bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        none = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        canvas.savefig(file, format="svg", transparent=True, metadata=none)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s+", " ", svg).replace("> <", "><")
    for stand_in, variable in _STAND_INS.items():
        svg = svg.replace(stand_in, variable)
    svg = re.sub(r'id="series-(\d+)"', r'data-series="\1"', svg)
    used = {name for pair in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg) for name in pair}
    # What nothing refers to needs no identifier.
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)
    svg = re.sub(r"font-family: [^;\"]*; ", "", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box, "Matplotlib writes one"
    head = f'<svg role="img" aria-label="{html.escape(title)}" {box[0]} '
    head += 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return head + svg[svg.index(">") + 1 :].strip()


def prefixes() -> Iterator[str]:
    """Prefixes for the figures of one page: f0, f1, ..."""
    return (f"f{k}" for k in itertools.count())
