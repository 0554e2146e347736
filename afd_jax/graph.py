"""The loss graph: who learns from whom.

Nodes are networks or branches of one, numbered from 0. An edge `(source, target)` says that the
target learns from the source; a source in another network is a constant in that loss. A node
without incoming edges learns from the labels alone. Each method of this package is a graph plus the
losses its edges carry.
"""

import ast
import dataclasses
from collections.abc import Sequence
from typing import Any

from afd_jax.errors import SettingError, one_of

Edge = tuple[int, int]


def cyclic_pairs(count: int) -> tuple[Edge, ...]:
    """The one-way cycle of AFD (Chung et al., ICML 2020, section on more than two networks).

    Args:
      count: number of networks K, at least 2. K = 2 is the mutual pair.

    Returns:
      K edges (source, target): `((0, 1), (1, 2), ..., (K-1, 0))`.

    Raises:
      SettingError: if K is not a whole number of at least 2.

    >>> cyclic_pairs(3)
    ((0, 1), (1, 2), (2, 0))
    """
    _require_several(count)
    return tuple((k, (k + 1) % count) for k in range(count))


def all_pairs(count: int) -> tuple[Edge, ...]:
    """Everybody learns from everybody else: the K(K-1) edges of deep mutual learning (DML).

    Raises:
      SettingError: if K is not a whole number of at least 2.

    >>> all_pairs(3)
    ((1, 0), (2, 0), (0, 1), (2, 1), (0, 2), (1, 2))
    """
    _require_several(count)
    return tuple((j, k) for k in range(count) for j in range(count) if j != k)


def star(count: int, center: int = 0) -> tuple[Edge, ...]:
    """Every other network teaches the one in the centre: several teachers, one student.

    Raises:
      SettingError: if K is not a whole number of at least 2, or the centre is not one of the nodes.

    >>> star(3)
    ((1, 0), (2, 0))
    """
    _require_several(count)
    if center not in range(count):
        raise SettingError("center", center, f"must be a node, 0 to {count - 1}")
    return tuple((j, center) for j in range(count) if j != center)


def from_teachers(students: int, teachers: int) -> tuple[Edge, ...]:
    """Every teacher teaches every student; nodes are the students, then the teachers.

    >>> from_teachers(2, 2)
    ((2, 0), (3, 0), (2, 1), (3, 1))
    """
    return tuple((students + j, k) for k in range(students) for j in range(teachers))


SHAPES = {"cyclic": cyclic_pairs, "all_pairs": all_pairs, "star": star}


@dataclasses.dataclass(frozen=True)
class Graph:
    """A checked loss graph.

    Attributes:
      count: number of nodes.
      edges: (source, target) pairs.

    Raises:
      SettingError: for an edge that is not a pair of nodes, points at itself or stands twice.

    >>> graph = Graph(3, cyclic_pairs(3))
    >>> graph.sources(0)
    (2,)
    >>> print(graph.text(["a", "b", "c"]))
    0 a -> 1 b
    1 b -> 2 c
    2 c -> 0 a
    """

    count: int
    edges: tuple[Edge, ...]

    def __post_init__(self) -> None:
        seen = set()
        for edge in self.edges:
            pair = isinstance(edge, Sequence) and not isinstance(edge, str) and len(edge) == 2
            if not pair or not all(type(node) is int for node in edge):
                raise SettingError("graph", edge, "each edge must be (source, target)")
            for node in edge:
                if node not in range(self.count):
                    remedy = f"node {node} does not exist; nodes are 0 to {self.count - 1}"
                    raise SettingError("graph", edge, remedy)
            if edge[0] == edge[1]:
                raise SettingError("graph", edge, "a network cannot be its own source")
            if tuple(edge) in seen:
                raise SettingError("graph", edge, "this edge stands twice; keep one")
            seen.add(tuple(edge))
        object.__setattr__(self, "edges", tuple((source, target) for source, target in self.edges))

    def sources(self, target: int) -> tuple[int, ...]:
        """The nodes that `target` learns from, in the order of the edges."""
        return tuple(source for source, k in self.edges if k == target)

    def joined(self) -> tuple[int, ...]:
        """The nodes that stand at either end of an edge, in order."""
        return tuple(sorted({node for edge in self.edges for node in edge}))

    def connected(self, node: int) -> tuple[int, ...]:
        """The nodes that edges join to `node`, in either direction and over any distance.

        >>> Graph(5, ((0, 1), (2, 1), (3, 4))).connected(0)
        (0, 1, 2)
        """
        found, new = {node}, {node}
        while new:
            new = {n for edge in self.edges if found & {*edge} for n in edge} - found
            found |= new
        return tuple(sorted(found))

    def with_room(self, at: int, count: int) -> "Graph":
        """The graph with `count` new nodes before node `at`, outside all edges.

        >>> Graph(3, ((2, 0), (2, 1))).with_room(2, 2)
        Graph(count=5, edges=((4, 0), (4, 1)))
        """
        edges = tuple(tuple(n + count * (n >= at) for n in edge) for edge in self.edges)
        return Graph(self.count + count, edges)  # type: ignore[arg-type]

    def text(self, names: Sequence[str]) -> str:
        """One line per edge, then the nodes that learn alone: for logs."""
        lines = [f"{j} {names[j]} -> {k} {names[k]}" for j, k in self.edges]
        alone = [k for k in range(self.count) if k not in self.joined()]
        return "\n".join(lines + [f"{k} {names[k]} (outside the graph)" for k in alone])

    def mermaid(self, names: Sequence[str]) -> str:
        """The graph as Mermaid source, which notebooks and code hosts draw as a picture."""
        nodes = [f'  n{k}["{k}: {names[k]}"]' for k in range(self.count)]
        return "\n".join(["graph LR", *nodes, *(f"  n{j} --> n{k}" for j, k in self.edges)])


def make_graph(shape: str | Sequence[Sequence[int]], count: int, teachers: int = 0) -> Graph:
    """Builds a graph from a setting.

    Args:
      shape: "cyclic", "all_pairs", "star", "none", or the edges themselves, perhaps as text.
      count: number of networks K.
      teachers: number of frozen teachers, which are the nodes after the networks; whatever shape
        the networks have among themselves, each teacher teaches all of them. Edges stand alone.

    Raises:
      SettingError: if the shape is unknown, an edge is wrong, or K < 2 where edges are asked for.

    >>> make_graph("cyclic", 2)
    Graph(count=2, edges=((0, 1), (1, 0)))
    """
    shape = _parsed(shape)
    if isinstance(shape, list | tuple):
        return Graph(count + teachers, tuple(_as_edge(edge) for edge in shape))
    taught = from_teachers(count, teachers)
    if shape == "none":
        return Graph(count + teachers, taught)
    if shape not in SHAPES:
        remedy = one_of(shape, [*SHAPES, "none"]) + ", or give edges ((source, target), ...)"
        raise SettingError("graph", shape, remedy)
    return Graph(count + teachers, SHAPES[shape](count) + taught)


def _parsed(shape: Any) -> Any:
    """Edges may come from a command line, as text."""
    if not isinstance(shape, str) or not shape.startswith(("(", "[")):
        return shape
    try:
        return ast.literal_eval(shape)
    except (ValueError, SyntaxError) as error:
        remedy = "edges are written ((source, target), ...)"
        raise SettingError("graph", shape, remedy) from error


def _as_edge(edge: Sequence[int]) -> Edge:
    return tuple(edge) if isinstance(edge, list | tuple) else edge  # type: ignore[return-value]


def _require_several(count: int) -> None:
    if type(count) is not int or count < 2:
        raise SettingError("count", count, "a loss graph needs at least 2 networks")
