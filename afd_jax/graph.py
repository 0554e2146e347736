"""The loss graph: who learns from whom.

A node is what has logits: a network, a branch of one, or what stands beside them. It has a name and
a role. An edge `(source, target)` says that the target learns from the source. Each method of this
package is such a graph and the losses that its nodes and edges carry.
"""

import ast
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from afd_jax import drawing
from afd_jax.errors import SettingError, one_of

Edge = tuple[str, str]

ROLES = {
    "student": "a network, or a branch of one, that trains",
    "ensemble": "what a network makes of its branches; trains with them",
    "twin": "starts as a student, sees the same batches, learns from labels alone: the control",
    "average": "moving average of a student's parameters",
    "snapshot": "a student as it was at the end of the last epoch",
    "teacher": "frozen",
}
LEARNERS = ("student", "ensemble")
"""The roles that an edge may end at."""


@dataclasses.dataclass(frozen=True)
class Node:
    """One node.

    Attributes:
      name: unique within the graph; positions mean nothing.
      role: one of `ROLES`.
      of: the student that a twin, an average or a snapshot belongs to.
    """

    name: str
    role: str = "student"
    of: str | None = None


def cyclic_pairs(nodes: Sequence[Any]) -> tuple[tuple[Any, Any], ...]:
    """The one-way cycle of AFD (Chung et al., ICML 2020, section on more than two networks).

    Args:
      nodes: K names, at least 2. K = 2 is the mutual pair.

    Returns:
      K edges (source, target): 1 -> 2 -> ... -> K -> 1.

    Raises:
      SettingError: for fewer than 2 nodes.

    >>> cyclic_pairs(["a", "b", "c"])
    (('a', 'b'), ('b', 'c'), ('c', 'a'))
    """
    _require_several(nodes)
    return tuple(zip(nodes, [*nodes[1:], nodes[0]], strict=True))


def all_pairs(nodes: Sequence[Any]) -> tuple[tuple[Any, Any], ...]:
    """Everybody learns from everybody else: the K(K-1) edges of deep mutual learning (DML).

    Raises:
      SettingError: for fewer than 2 nodes.

    >>> all_pairs("ab")
    (('b', 'a'), ('a', 'b'))
    """
    _require_several(nodes)
    return tuple((j, k) for k in nodes for j in nodes if j != k)


def star(nodes: Sequence[Any]) -> tuple[tuple[Any, Any], ...]:
    """The first node learns from all the others.

    Raises:
      SettingError: for fewer than 2 nodes.

    >>> star(["student", "a", "b"])
    (('a', 'student'), ('b', 'student'))
    """
    _require_several(nodes)
    return tuple((j, nodes[0]) for j in nodes[1:])


SHAPES: dict[str, Callable[[Sequence[Any]], tuple[tuple[Any, Any], ...]]] = {
    "cyclic": cyclic_pairs,
    "all_pairs": all_pairs,
    "star": star,
}


@dataclasses.dataclass(frozen=True)
class Graph:
    """A checked loss graph; it draws itself in a notebook and prints as text.

    Attributes:
      nodes: all of them.
      edges: (source, target) names.
      labels: what each edge carries, in words for drawings; empty where all carry the same.

    Raises:
      SettingError: for two nodes of one name, an unknown role, and an edge that is no pair of
        nodes, points at itself, stands twice or ends at a node that does not learn from others.

    >>> graph = Graph.of(["a", "b", "c"], cyclic_pairs(["a", "b", "c"]))
    >>> graph.sources("a")
    ('c',)
    >>> print(graph)
    a -> b
    b -> c
    c -> a
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...] = ()
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [node.name for node in self.nodes]
        for node in self.nodes:
            if node.role not in ROLES:
                raise SettingError("role", node.role, one_of(node.role, ROLES))
            if names.count(node.name) > 1:
                raise SettingError("graph", node.name, "two nodes have this name")
        seen = set()
        for edge in self.edges:
            pair = isinstance(edge, list | tuple) and len(edge) == 2
            if not pair or not all(isinstance(name, str) for name in edge):
                raise SettingError("graph", edge, "each edge must be ('source', 'target')")
            for name in edge:
                if name not in names:
                    raise SettingError("graph", edge, f"there is no node {name!r}; {_all(names)}")
            if edge[0] == edge[1]:
                raise SettingError("graph", edge, "a network cannot be its own source")
            if self[edge[1]].role not in LEARNERS:
                remedy = f"{edge[1]} is a {self[edge[1]].role} ({ROLES[self[edge[1]].role]}), "
                raise SettingError("graph", edge, remedy + "which learns from nobody")
            if tuple(edge) in seen:
                raise SettingError("graph", edge, "this edge is given twice; keep one")
            seen.add(tuple(edge))
        object.__setattr__(self, "nodes", tuple(self.nodes))
        object.__setattr__(self, "edges", tuple((source, target) for source, target in self.edges))

    @classmethod
    def of(cls, students: Sequence[str], edges: Sequence[Edge] = ()) -> "Graph":
        """A graph of students alone."""
        return cls(tuple(Node(name) for name in students), tuple(edges))

    def __getitem__(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        raise SettingError("node", name, one_of(name, self.names))

    @property
    def names(self) -> tuple[str, ...]:
        """Of all nodes."""
        return tuple(node.name for node in self.nodes)

    def with_role(self, *roles: str) -> tuple[str, ...]:
        """Names of the nodes that have one of the roles."""
        return tuple(node.name for node in self.nodes if node.role in roles)

    @property
    def students(self) -> tuple[str, ...]:
        """Names of the networks and branches that train."""
        return self.with_role("student")

    @property
    def learners(self) -> tuple[str, ...]:
        """Names of the nodes that the method gives losses to."""
        return self.with_role(*LEARNERS)

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the frozen networks."""
        return self.with_role("teacher")

    def beside(self, student: str, role: str) -> str | None:
        """Name of the student's twin, average or snapshot, if it has one."""
        found = (node.name for node in self.nodes if (node.of, node.role) == (student, role))
        return next(found, None)

    def sources(self, target: str) -> tuple[str, ...]:
        """The nodes that `target` learns from, in the order of the edges."""
        return tuple(source for source, to in self.edges if to == target)

    def connected(self, name: str) -> tuple[str, ...]:
        """The nodes that edges join to this one, in either direction and over any distance.

        >>> Graph.of("abcde", (("a", "b"), ("c", "b"), ("d", "e"))).connected("a")
        ('a', 'b', 'c')
        """
        found, new = {name}, {name}
        while new:
            new = {n for edge in self.edges if found & {*edge} for n in edge} - found
            found |= new
        return tuple(n for n in self.names if n in found)

    def __str__(self) -> str:
        return drawing.as_text(self.nodes, self.edges, self.labels)

    def mermaid(self) -> str:
        """The graph as Mermaid source, which code hosts draw as a picture."""
        return drawing.as_mermaid(self.nodes, self.edges, self.labels)

    def _repr_svg_(self) -> str:
        return drawing.as_svg(self.nodes, self.edges, self.labels)


def make_edges(
    shape: str | Sequence[Sequence[str]], students: Sequence[str], teachers: Sequence[str] = ()
) -> tuple[Edge, ...]:
    """Edges from a setting.

    Args:
      shape: "cyclic", "all_pairs", "star", "none", or the edges themselves by name, perhaps as
        text.
      students: names.
      teachers: names; whatever shape the students have among themselves, each teacher teaches all
        of them. Edges by name stand alone.

    Raises:
      SettingError: if the shape is unknown, or needs more students.

    >>> make_edges("cyclic", ["a", "b"], ["teacher"])
    (('a', 'b'), ('b', 'a'), ('teacher', 'a'), ('teacher', 'b'))
    """
    shape = _parsed(shape)
    if isinstance(shape, list | tuple):
        return tuple(tuple(e) if isinstance(e, list) else e for e in shape)
    if shape not in (*SHAPES, "none"):
        remedy = one_of(shape, [*SHAPES, "none"]) + ", or give edges (('source', 'target'), ...)"
        raise SettingError("graph", shape, remedy)
    among = SHAPES[shape](students) if shape != "none" else ()
    return (*among, *((teacher, student) for teacher in teachers for student in students))


def _parsed(shape: Any) -> Any:
    """Edges may come from a command line, as text."""
    if not isinstance(shape, str) or not shape.startswith(("(", "[")):
        return shape
    try:
        return ast.literal_eval(shape)
    except (ValueError, SyntaxError) as error:
        remedy = "edges are written (('source', 'target'), ...)"
        raise SettingError("graph", shape, remedy) from error


def _all(names: Sequence[str]) -> str:
    return f"nodes are {', '.join(names)}"


def _require_several(nodes: Sequence[Any]) -> None:
    if len(nodes) < 2:
        remedy = "this graph needs at least two networks; name more, or set graph='none'"
        raise SettingError("networks", tuple(nodes), remedy)
