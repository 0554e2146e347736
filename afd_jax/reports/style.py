"""The common look of all pictures: of a run, and of the studies."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

WIDTH = 8.6
"""Inches. A page shows 72 points of an SVG as 96 pixels: about as wide as a README's column."""

QUIET = "0.35"
"""Colour of what stands beside the networks, such as ensembles."""


@contextlib.contextmanager
def picture(
    file: pathlib.Path, rows: int, columns: int, height: float, **options: Any
) -> Iterator[tuple[Any, Any]]:
    """A figure to draw into, which is written at the end.

    The same drawing gives the same bytes of SVG: no date, no random names. Text stays text.

    Args:
      file: to write; its suffix is the format (.png or .svg).
      rows: of panels.
      columns: of panels.
      height: of the figure in inches; its width is `WIDTH`.
      **options: of `Figure.subplots`.

    Yields:
      The figure and its axes [rows, columns].
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    look: Any = {
        "axes.edgecolor": "0.6",
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": "medium",
        "grid.alpha": 0.3,
        "legend.fontsize": "small",
        "legend.edgecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": "afd_jax",
    }
    with matplotlib.style.context(["petroff10", look]):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.subplots(rows, columns, squeeze=False, **options)
        plain = {"Date": None, "Creator": None} if file.suffix == ".svg" else None
        figure.savefig(file, dpi=120, metadata=plain)
