"""The shape of a method: what a node and an edge of the loss graph carry, nothing else.

The engine runs every network once and asks the method for the losses of each node that learns.
There are three updates, each with an optimizer of its own, and a loss belongs to one of them:

  logit          trains the network, and those heads of the node that the loss depends on
  feature        likewise, after the logit update, with its own optimizer
  discriminator  trains the heads that it depends on, and they belong to it: all else is a constant

Whatever a method writes, only the node's own network and heads get a gradient: what comes from a
source is a constant, and so is a discriminator's head in the other two updates.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp

from afd_jax.errors import SettingError
from afd_jax.graph import Edge, Graph, make_edges
from afd_jax.methods import options
from afd_jax.methods.batch import Batch
from afd_jax.networks.layers import single
from afd_jax.networks.outputs import Outputs

UPDATES = ("logit", "feature", "discriminator")

Values = dict[str, jax.Array]
"""Named values, one per example: each [batch]."""


@flax.struct.dataclass
class Terms:
    """Named losses by update, and metrics, which are only logged; each value is [batch].

    The engine adds up the batch means of an update's losses and differentiates the sum. Where
    `paused`, a scalar, is True, the node's network takes no step: its parameters, and what its
    optimizers remember, stay as they are. What is `remembered`, [batch, ...], goes to a method's
    memory after the step.

    >>> a, b = Terms(logit={"x": jnp.ones(2)}), Terms(metrics={"y": jnp.zeros(2)})
    >>> sorted((a + b).metrics), (a + b).logit["x"].shape
    (['y'], (2,))
    """

    logit: Values = flax.struct.field(default_factory=dict)
    feature: Values = flax.struct.field(default_factory=dict)
    discriminator: Values = flax.struct.field(default_factory=dict)
    metrics: Values = flax.struct.field(default_factory=dict)
    paused: jax.Array | None = None
    remembered: Values = flax.struct.field(default_factory=dict)

    def __add__(self, other: "Terms") -> "Terms":
        return _merged((self, other), sum)

    def check(self, node: str, size: int) -> None:
        """Raises SettingError for a wrong shape, or a name in two updates."""
        if self.paused is not None and (self.paused.shape, self.paused.dtype) != ((), bool):
            remedy = f"of {node} must be one truth value, not {self.paused.dtype} of shape "
            raise SettingError("method", "paused", remedy + str(self.paused.shape))
        seen: set[str] = set()
        for update in UPDATES:
            for name, value in getattr(self, update).items():
                if name in seen:
                    raise SettingError("method", name, f"stands in two updates of {node}")
                seen.add(name)
                if getattr(value, "shape", None) != (size,):
                    remedy = f"the {update} loss of {node} must have one value per example, "
                    remedy += f"[batch], not shape {getattr(value, 'shape', None)}"
                    raise SettingError("method", name, remedy)

    @staticmethod
    def mean(each: Sequence["Terms"]) -> "Terms":
        """Of each name, the mean over the terms that have it."""
        return _merged(each, lambda values: jnp.mean(jnp.stack(values), axis=0))

    @staticmethod
    def sum(each: Sequence["Terms"]) -> "Terms":
        """Of each name, the sum over the terms that have it."""
        return _merged(each, sum)


def _merged(each: Sequence[Terms], reduce: Any) -> Terms:
    for terms in each:
        if not isinstance(terms, Terms):
            remedy = "node, edge and losses must return Terms"
            raise SettingError("method", type(terms).__name__, remedy)
    kinds: dict[str, Values] = {}
    for kind in (*UPDATES, "metrics", "remembered"):
        values: dict[str, list[jax.Array]] = {}
        for terms in each:
            for name, value in getattr(terms, kind).items():
                values.setdefault(name, []).append(value)
        kinds[kind] = {n: reduce(v) if len(v) > 1 else v[0] for n, v in values.items()}
    return Terms(**kinds, paused=any_paused(each))


def any_paused(each: Iterable[Terms]) -> jax.Array | None:
    """Whether any of them pauses the network; None if none ever does."""
    told = [terms.paused for terms in each if terms.paused is not None]
    return jnp.any(jnp.stack(told)) if told else None


@dataclasses.dataclass(frozen=True)
class View:
    """A node as a method sees it.

    Attributes:
      name: of the node.
      role: as in `graph.ROLES`.
      outputs: of its network; in `Method.heads` shapes without values, for a batch of two.
      heads: the small networks that the node owns, by name; call one on an array.
      sources: the nodes that it learns from; a source's own sources are not given.
      connected: in `Method.heads`, all nodes that edges join to it over any distance, itself too.
      on_partner: what its network says of another image of the class; see `partner`.
      run_after: how a frozen teacher is run from one of its stages on; see `after`.
    """

    name: str
    role: str
    outputs: Outputs
    heads: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sources: tuple["View", ...] = ()
    connected: tuple["View", ...] = ()
    on_partner: Outputs | None = None
    run_after: Callable[[jax.Array, int], Outputs] | None = None

    @property
    def logits(self) -> jax.Array:
        """[batch, classes]."""
        return self.outputs.logits

    @property
    def features(self) -> jax.Array:
        """The last feature map, [batch, height, width, channels]."""
        return self.outputs.features

    @property
    def pooled(self) -> jax.Array:
        """The last feature map's mean over positions, [batch, channels]."""
        return jnp.mean(single(self.features), axis=(1, 2))

    @property
    def extras(self) -> Mapping[str, jax.Array]:
        """What else the network returned, by name."""
        return self.outputs.extras

    @property
    def map(self) -> jax.Array:
        """The feature map after the head "transfer", which runs with the network, if there is one.

        [batch, height, width, channels].
        """
        return self.extras.get("transfer", self.features)

    @property
    def stages(self) -> tuple[jax.Array, ...]:
        """The maps at the ends of the network's stages.

        Raises:
          SettingError: if it returns none.
        """
        if not self.outputs.stages:
            remedy = "returns no maps of its stages; give them as Outputs.stages"
            raise SettingError("networks", self.name, remedy)
        return self.outputs.stages

    @property
    def preactivations(self) -> tuple[jax.Array, ...]:
        """The same before the ReLU that ends a stage, where the network tells; raises likewise."""
        return self.outputs.preactivations or self.stages

    def after(self, maps: jax.Array, stages: int) -> Outputs:
        """What a frozen teacher makes of another map in place of the one at the end of a stage.

        It runs as in evaluation; a gradient flows to the map, none to the teacher.

        Args:
          maps: of the shape of `self.stages[stages - 1]`.
          stages: how many stages are left out, at least 1.

        Raises:
          SettingError: if the node is no frozen teacher, or has no stages to enter between.
        """
        if self.run_after is None:
            remedy = "only a frozen teacher can be run from one of its stages on"
            raise SettingError("networks", self.name, remedy)
        return self.run_after(maps, stages)

    def head(self, name: str) -> Any:
        """A head of the node, `heads[name]`.

        Raises:
          SettingError: if it has none, as twins and averages, which only teach.
        """
        if name not in self.heads:
            remedy = f"has no head {name!r}, which only students have; take it out of the edges"
            raise SettingError("graph", self.name, remedy)
        return self.heads[name]

    @property
    def partner(self) -> Outputs:
        """What the network says of another image of the same class, for each image; a constant."""
        if self.on_partner is None:
            remedy = 'this method pairs images of a class; give "partner_image" in the batch'
            raise SettingError("batch.partner_image", None, remedy)
        return self.on_partner


@dataclasses.dataclass(frozen=True)
class Method:
    """A method of learning from each other; subclass it and override what the paper has.

    Fields are the options that a config may set; see `methods.options` for their checks.

    Raises:
      SettingError: for an option out of its bounds.
    """

    graph: ClassVar[str] = "all_pairs"
    """The shape of the paper's graph among networks that train; beside teachers there is none."""
    teachers: ClassVar[tuple[int, int | None]] = (0, None)
    """The least and the most frozen teachers that it takes; None: any number."""
    peers: ClassVar[bool] = True
    """Whether networks that train may teach each other."""
    beside: ClassVar[str | None] = None
    """"average" or "snapshot": each network has one, whose nodes are in the graph, too."""
    pairs: ClassVar[bool] = False
    """Whether batches hold another image of the same class for each (`View.partner`)."""
    whole_images: ClassVar[str | None] = None
    """Why it cannot learn from mixed images (mixup, CutMix), in words; None if it can."""
    gradient_to_branches: ClassVar[bool] = False
    """Whether gradients flow into sources of the same network; into other networks none do."""

    def __post_init__(self) -> None:
        options.check(self)

    def heads(self, own: View) -> Mapping[str, Any]:
        """The small networks that a node owns: Linen or NNX modules by name, from shapes alone.

        One called "transfer" is put on the feature map in the forward pass (`View.map`); the others
        are called where a loss needs them. Asked for students, ensembles and teachers.
        """
        return {}

    def node(self, own: View, batch: Batch) -> Terms:
        """What a node learns on its own."""
        return Terms()

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """What one edge carries; the mean is taken over a node's edges."""
        return Terms()

    def losses(self, own: View, sources: Sequence[View], batch: Batch) -> Terms:
        """All losses of a node; override it where one target is made of all sources."""
        edges = [self.edge(own, source, batch) for source in sources]
        return Terms.sum([self.node(own, batch), Terms.mean(edges)])

    def edges(self, graph: Graph, shape: Any) -> tuple[Edge, ...]:
        """Who learns from whom.

        Args:
          graph: the nodes, without edges.
          shape: "own" for the paper's, or as in `graph.make_edges`.

        Raises:
          SettingError: for a graph that the method cannot have.
        """
        if shape == "own":
            shape = "none" if graph.teachers else self.graph
        edges = make_edges(shape, graph.students, graph.teachers)
        if not self.peers:
            for edge in edges:
                if edge[0] in graph.learners:
                    remedy = f"{type(self).__name__} has no edges between networks that train"
                    raise SettingError("graph", edge, remedy)
        if self.beside is None:
            return edges
        own = ((graph.beside(name, self.beside), name) for name in graph.students)
        return (*((source, name) for source, name in own if source), *edges)

    @property
    def edge_labels(self) -> tuple[str, ...]:
        """What each edge carries, in a word, for drawings; empty where all carry the same."""
        return ()

    @property
    def preparation_epochs(self) -> float:
        """How long `prepare` sees batches before the first step; 0 for a method without it."""
        return 0.0

    def prepare(
        self, teacher: View, heads: Mapping[str, Any], maps: Iterator[jax.Array], rng: jax.Array
    ) -> Mapping[str, Any]:
        """Trains a teacher's heads before the first step.

        Args:
          teacher: as in `heads`.
          heads: their variables by name.
          maps: the teacher's last feature maps, a batch at a time.
          rng: to draw from.

        Returns:
          New variables by name.
        """
        return heads

    def branch(self, name: str, network: Any, classes: int) -> Any:
        """The network that is trained in place of the one asked for: itself, or in branches."""
        return network
