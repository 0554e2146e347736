"""A graph whose edges carry different methods: peers that also learn from a frozen teacher.

No paper; each edge's loss is that of its method's paper. A node learns from the labels once, with
weight 1, whatever weight they have in its edges' methods (assumed). What several edges of one
method carry is averaged, as in that method; what different methods carry is added up (assumed).
"""

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from afd_jax.errors import SettingError
from afd_jax.graph import Edge, Graph
from afd_jax.methods import soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.memory import Memory
from afd_jax.methods.method import UPDATES, Method, Terms, View

_FORM = "must be (('source', 'target', 'afd'), ...); with options, {'name': 'afd', ...} for 'afd'"


@dataclasses.dataclass(frozen=True)
class Mixed(Method):
    """Each edge carries what its own method says; all nodes learn from the labels.

    Attributes:
      by_edge: {("source", "target"): method} or (("source", "target", method), ...), where a method
        is an object, a name, or {"name": ..., and its options}. The edges are the graph.

    Raises:
      SettingError: for a method whose edges do not stand alone: one that makes a target of all its
        sources, remembers, has branches, or trains before the first step.

    >>> Mixed({("a", "b"): "dml", ("teacher", "a"): "kd"}).labels
    ('dml', 'kd')
    """

    graph: ClassVar[str] = "none"

    by_edge: Any = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "by_edge", tuple(map(_entry, _entries(self.by_edge))))

    @property
    def methods(self) -> tuple[Method, ...]:
        """The different ones, in the order of the edges."""
        return tuple(dict.fromkeys(method for _, _, method in self.by_edge))

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each of `methods`, that of its module."""
        found: list[str] = []
        for method in self.methods:
            name = type(method).__module__.rpartition(".")[2]
            count = sum(own.rpartition("_")[0] == name or own == name for own in found)
            found.append(f"{name}_{count}" if count else name)
        return tuple(found)

    @property
    def edge_labels(self) -> tuple[str, ...]:
        """The name of each edge's method."""
        names = dict(zip(self.methods, self.labels, strict=True))
        return tuple(names[method] for _, _, method in self.by_edge)

    @property
    def whole_images(self) -> str | None:  # type: ignore[override]
        """Why one of the methods cannot learn from mixed images."""
        return next(filter(None, (method.whole_images for method in self.methods)), None)

    def edges(self, graph: Graph, shape: Any) -> tuple[Edge, ...]:
        """Those that have a method."""
        if shape != "own":
            remedy = 'the edges of a mixed graph are in its method, by_edge; leave it "own"'
            raise SettingError("graph", shape, remedy)
        if not self.by_edge:
            raise SettingError("method.by_edge", self.by_edge, _FORM)
        for source, target, method in self.by_edge:
            among = source in graph.learners and target in graph.learners
            if among and not method.peers:
                remedy = f"{type(method).__name__} has no edges between networks that train"
                raise SettingError("method.by_edge", (source, target), remedy)
            if among and method.teachers[0]:
                remedy = f"{type(method).__name__} learns from frozen teachers"
                raise SettingError("method.by_edge", (source, target), remedy)
            if source in graph.teachers and method.teachers[1] == 0:
                remedy = f"{type(method).__name__} takes no frozen teachers"
                raise SettingError("method.by_edge", (source, target), remedy)
        return tuple((source, target) for source, target, _ in self.by_edge)

    def heads(self, own: View) -> Mapping[str, Any]:
        """The heads of each method, with its name before theirs; "transfer" there is but one."""
        found: dict[str, Any] = {}
        shapes: dict[str, Any] = {}
        for label, method in zip(self.labels, self.methods, strict=True):
            if not any(own.name in (s, t) for s, t, m in self.by_edge if m == method):
                continue
            heads = method.heads(self._seen_by(method, label, own))
            for name, head in heads.items():
                found[name if name == "transfer" else f"{label}_{name}"] = head
            if hasattr(method, "transfer"):
                shapes[label] = getattr(heads.get("transfer"), "shape", own.features.shape[1:])
        if len({*map(tuple, shapes.values())}) > 1:
            remedy = f"{own.name} has one transfer layer, but its methods need maps of several "
            remedy += f"shapes: {shapes}; choose networks whose last maps have one shape"
            raise SettingError("method.by_edge", own.name, remedy)
        return found

    def losses(self, own: View, sources: Sequence[View], batch: Batch) -> Terms:
        """Cross-entropy, and the mean over each method's edges."""
        terms = Terms(logit=soft.labels(own.logits, batch))
        for label, method in zip(self.labels, self.methods, strict=True):
            seen = self._seen_by(method, label, own)
            each = [
                method.edge(seen, self._seen_by(method, label, source), batch)
                for source in sources
                if self._of(source.name, own.name) == method
            ]
            if each:
                terms += _named(label, Terms.mean(each))
        return terms

    def _of(self, source: str, target: str) -> Method | None:
        return next((m for s, t, m in self.by_edge if (s, t) == (source, target)), None)

    def _seen_by(self, method: Method, label: str, view: View) -> View:
        """The node as a method sees it that knows of its own edges and heads alone."""
        edges = [(s, t) for s, t, m in self.by_edge if m == method]
        names = {name for edge in edges for name in edge}
        joined = Graph.of(sorted(names), edges).connected(view.name) if view.name in names else ()
        return dataclasses.replace(
            view,
            heads={
                name.removeprefix(f"{label}_"): head
                for name, head in view.heads.items()
                if name == "transfer" or name.startswith(f"{label}_")
            },
            sources=tuple(s for s in view.sources if (s.name, view.name) in edges),
            connected=tuple(
                self._seen_by(method, label, other) if other.name != view.name else other
                for other in view.connected
                if other.name in joined
            ),
        )


def _entries(given: Any) -> list[Any]:
    if isinstance(given, str):  # from a command line
        try:
            given = ast.literal_eval(given)
        except (ValueError, SyntaxError) as error:
            raise SettingError("method.by_edge", given, _FORM) from error
    if isinstance(given, Mapping):
        return [(*edge, method) for edge, method in given.items()]
    if not isinstance(given, list | tuple):
        raise SettingError("method.by_edge", given, _FORM)
    return list(given)


def _entry(given: Any) -> tuple[str, str, Method]:
    from afd_jax import methods

    if not isinstance(given, list | tuple) or len(given) != 3:
        raise SettingError("method.by_edge", given, _FORM)
    source, target, method = given
    if isinstance(method, str):
        method = methods.make(method, {})
    elif isinstance(method, Mapping):
        method = methods.make(method.get("name", ""), {k: method[k] for k in method if k != "name"})
    if not isinstance(method, Method):
        raise SettingError("method.by_edge", given, _FORM)
    kind = type(method)
    alone = kind.losses is Method.losses and kind.edge is not Method.edge
    alone = alone and kind.branch is Method.branch and kind.prepare is Method.prepare
    if not alone or isinstance(method, Memory) or method.beside or method.pairs:
        remedy = f"the edges of {kind.__name__} do not stand alone, so it cannot be one of several"
        raise SettingError("method.by_edge", given[:2], remedy)
    return str(source), str(target), method


def _named(label: str, terms: Terms) -> Terms:
    """The terms with their method's name, so that those of one name stay apart."""
    kinds: dict[str, Any] = {
        kind: {f"{label}_{name}": value for name, value in getattr(terms, kind).items()}
        for kind in (*UPDATES, "metrics")
    }
    return dataclasses.replace(terms, **kinds)
