"""The page itself: one HTML file without anything from outside."""

import base64
import importlib.resources
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from afd_jax.graph import Graph, Node
from afd_jax.reports.facts import with_role
from afd_jax.reports.page import figures, series, tables
from afd_jax.reports.page.figures import Figure
from afd_jax.reports.page.records import RunRecords
from afd_jax.reports.page.series import Panel

# (anchor, title, panels of one run, whether they are shown at once)
_CURVES = (
    ("accuracy", "Accuracy", series.accuracy_panels, True),
    ("losses", "Losses", series.loss_panels, True),
    ("discriminators", "Discriminators", series.critic_panels, True),
    ("likeness", "Likeness of networks", series.similarity_panels, True),
    ("gradients", "Gradients", series.gradient_panels, False),
    ("rates", "Learning rates", series.rate_panels, False),
    ("others", "Other measurements in training", series.other_panels, False),
)


def page(runs: Sequence[RunRecords]) -> str:
    """HTML of one run, or of several compared.

    Args:
      runs: at least one; differences are to the first.
    """
    import jinja2

    prefixes = figures.prefixes()

    def drawn(panels: Iterable[Panel]) -> list[Figure]:
        return [figures.draw(panel, next(prefixes)) for panel in panels]

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_own),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"data_uri": _data_uri, "script_json": _script_json}
    template = environment.get_template("page.html.jinja")
    common: dict[str, Any] = {
        "runs": runs,
        "facts": tables.facts,
        "settings": tables.settings,
        "graph": lambda run: _graph(run, next(prefixes)),
        "style": _own("style.css"),
        "script": _own("script.js"),
        "tables": tables,
    }
    if len(runs) > 1:
        return template.render(
            **common,
            title="Comparison of " + ", ".join(run.name for run in runs),
            sections=[("curves", "Curves", drawn(series.comparison_panels(runs)), True)],
        )
    (run,) = runs
    sections = [(name, title, drawn(make(run)), open_) for name, title, make, open_ in _CURVES]
    analysis = run.analysis
    students = [n for n in with_role(run.facts, "student") if analysis and n in analysis["nodes"]]
    return template.render(
        **common,
        run=run,
        title=f"{run.facts['method']}: {run.name}",
        sections=[section for section in sections if section[2]],
        students=students,
        reliability=analysis and _reliability(run, analysis["nodes"], next(prefixes)),
    )


def _reliability(run: RunRecords, nodes: Mapping[str, Any], prefix: str) -> Figure:
    return figures.reliability(nodes, series.looks(run), prefix)


def _graph(run: RunRecords, prefix: str) -> str:
    """The loss graph as SVG that scales; twins and others stand outside all edges."""
    nodes = tuple(Node(n["name"], n["role"], n["of"]) for n in run.facts["nodes"])
    edges, labels = run.facts["edges"], run.facts.get("labels", ())
    graph = Graph(nodes, tuple((a, b) for a, b in edges), tuple(labels))
    # Its arrow heads have an identifier, which must be one of the page.
    drawn = graph._repr_svg_().replace('id="tip"', f'id="{prefix}-tip"')
    return drawn.replace("url(#tip)", f"url(#{prefix}-tip)")


def _own(name: str) -> str:
    folder = importlib.resources.files(__package__)
    return (folder / name).read_text(encoding="utf-8")


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _script_json(content: Any) -> Any:
    """JSON for the inside of a script element, which no text in it can end."""
    import markupsafe

    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return markupsafe.Markup(safe)
