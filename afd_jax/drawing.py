"""A loss graph as text, as Mermaid source and as a picture."""

import html
import math
from collections.abc import Iterator, Sequence
from typing import Any

_COLOURS = {
    "student": "#4477aa",
    "ensemble": "#66ccee",
    "twin": "#757575",
    "average": "#228833",
    "snapshot": "#ccbb44",
    "teacher": "#aa3377",
}
_HEIGHT, _RADIUS = 30, 17


def as_text(
    nodes: Sequence[Any], edges: Sequence[tuple[str, str]], labels: Sequence[str] = ()
) -> str:
    """One line per edge, then the nodes outside all edges."""
    joined = {name for edge in edges for name in edge}
    lines = [
        f"{source} -> {target}" + (f" ({label})" if label else "")
        for (source, target), label in _labelled(edges, labels)
    ]
    return "\n".join(lines + [f"{n.name} ({n.role})" for n in nodes if n.name not in joined])


def _labelled(
    edges: Sequence[tuple[str, str]], labels: Sequence[str]
) -> Iterator[tuple[tuple[str, str], str]]:
    return zip(edges, labels or [""] * len(edges), strict=True)


def as_mermaid(
    nodes: Sequence[Any], edges: Sequence[tuple[str, str]], labels: Sequence[str] = ()
) -> str:
    """A flow chart from left to right."""
    number = {node.name: f"n{k}" for k, node in enumerate(nodes)}
    shown = {node.name: node.name.replace('"', "#quot;") for node in nodes}  # as Mermaid writes it
    lines = [f'  {number[name]}["{words}"]' for name, words in shown.items()]
    arrows = [
        f"  {number[source]} -->" + (f"|{label}| " if label else " ") + number[target]
        for (source, target), label in _labelled(edges, labels)
    ]
    return "\n".join(["graph LR", *lines, *arrows])


def as_svg(
    nodes: Sequence[Any], edges: Sequence[tuple[str, str]], labels: Sequence[str] = ()
) -> str:
    """The nodes on an ellipse, coloured by role, with an arrow for each edge."""
    widths = {node.name: 20 + 8 * len(node.name) for node in nodes}
    half = max(widths.values(), default=0) / 2
    across = max(90.0, half * len(nodes) / 2.5)
    down = max(45.0, 22.0 * len(nodes))
    places = {}
    for k, node in enumerate(nodes):
        angle = 2 * math.pi * k / len(nodes) - math.pi
        places[node.name] = (
            half + 10 + across * (1 + math.cos(angle)),
            _HEIGHT + down * (1 + math.sin(angle)) if len(nodes) > 2 else _HEIGHT + 10,
        )
    width = 2 * (half + 10 + across)
    height = 2 * (_HEIGHT + (down if len(nodes) > 2 else 10)) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        'font-family="sans-serif" font-size="13">',
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#666"/></marker></defs>',
    ]
    for (source, target), label in _labelled(edges, labels):
        (x1, y1), (x2, y2) = places[source], places[target]
        length = math.hypot(x2 - x1, y2 - y1) or 1.0
        ux, uy = (x2 - x1) / length, (y2 - y1) / length
        # The two arrows of a pair bend away from each other.
        bend = min(26.0, 0.18 * length)
        middle = ((x1 + x2) / 2 - uy * bend, (y1 + y2) / 2 + ux * bend)
        start, end = (
            _edge_of_box(x, y, widths[name], middle)
            for (x, y), name in (((x1, y1), source), ((x2, y2), target))
        )
        parts.append(
            f'<path d="M{start[0]:.1f} {start[1]:.1f}Q{middle[0]:.1f} {middle[1]:.1f} '
            f'{end[0]:.1f} {end[1]:.1f}" fill="none" stroke="#666" marker-end="url(#tip)"/>'
        )
        if label:
            words = f'font-size="11" fill="#666" text-anchor="middle">{html.escape(label)}</text>'
            parts.append(f'<text x="{middle[0]:.1f}" y="{middle[1] - 3:.1f}" {words}')
    for node in nodes:
        (x, y), w = places[node.name], widths[node.name]
        name = html.escape(node.name)
        parts.append(
            f'<g><title>{name}: {node.role}</title><rect x="{x - w / 2:.1f}" '
            f'y="{y - _HEIGHT / 2:.1f}" width="{w}" height="{_HEIGHT}" rx="8" '
            f'fill="{_COLOURS[node.role]}"/><text x="{x:.1f}" y="{y + 4.5:.1f}" fill="#fff" '
            f'text-anchor="middle">{name}</text></g>'
        )
    return "".join([*parts, "</svg>"])


def _edge_of_box(x: float, y: float, width: float, towards: tuple[float, float]) -> Any:
    """Where the line from a box's middle leaves the box."""
    dx, dy = towards[0] - x, towards[1] - y
    scale = min(
        (width / 2 + 3) / abs(dx) if dx else math.inf, _RADIUS / abs(dy) if dy else math.inf
    )
    return x + dx * scale, y + dy * scale
