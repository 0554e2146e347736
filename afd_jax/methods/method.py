"""The shape of a method: a graph and the losses its edges carry, nothing else.

The generic step (`afd_jax.engine.step`) runs every network once and hands all outputs to the method. For
each node k it asks for up to three sets of losses and does with them what a paper's update says:

  `logit_terms`          trains the network of k with its "logit" optimizer; besides logits it may
                         look at maps, where a paper adds such a loss to the others
  `feature_terms`        trains the network of k with its "feature" optimizer
  `discriminator_terms`  trains the discriminators of k with its "discriminator" optimizer

A node is what has logits: a network, or a branch of one. Only the outputs (or discriminators) of
the network that k belongs to are differentiated, so a source in another network is a constant
whatever a method writes. An optimizer touches exactly the parameters that its loss depends on.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from afd_jax.errors import SettingError, require_flag
from afd_jax.graph import Graph, make_graph
from afd_jax.networks.outputs import Outputs

PerExample = dict[str, jax.Array]
"""Named values, one per example: each [batch]."""

Terms = tuple[PerExample, PerExample]
"""Losses, whose batch means are added up and differentiated, and metrics, which are only logged."""

Heads = Mapping[str, Callable[[jax.Array], jax.Array]]


@dataclasses.dataclass(frozen=True)
class Context:
    """What a loss on logits may look at beside the outputs.

    Attributes:
      label: [batch], integers.
      index: [batch], each example's number in the data set.
      progress: scalar, share of the run that is done, in [0, 1).
      epoch: scalar, how many epochs are done; 0 if the length of one is not known.
      epochs: of the run, perhaps with a fraction; infinite if it is not known.
      memory: the method's own arrays, see `Method.init_memory`.
      discriminators: those of the network, as constants.
    """

    label: jax.Array
    index: jax.Array
    progress: jax.Array | float = 0.0
    epoch: jax.Array | int = 0
    epochs: float = math.inf
    memory: Any = None
    discriminators: Heads = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Follower:
    """A copy of a network that no loss trains, with a node of its own in the graph.

    Attributes:
      name: what it is to the network, "average of".
      decay: of a moving average of the parameters, at most; 0 keeps up with the network. None takes
        parameters and statistics over at the end of each epoch.
      evaluates: it runs with those statistics; else with each batch's own, as in training.
      sees_partners: it sees, for each image, another one of the same class.
    """

    name: str
    decay: float | None
    evaluates: bool = False
    sees_partners: bool = False


@dataclasses.dataclass(frozen=True)
class Method:
    """A method of learning from each other; subclass it and override what the paper has.

    Attributes:
      graph: who learns from whom.
      second_forward: run the networks again between the logit and the feature update.
      own_augmentation: augment the batch for each network apart; else all see the same images.
      teachers: how many of the nodes, the last ones, are frozen networks.
    """

    graph: Graph
    second_forward: bool = False
    own_augmentation: bool = False
    teachers: int = 0

    own_graph: ClassVar[str] = "all_pairs"
    """The shape of the paper's graph among networks that train; of no use beside teachers."""
    teacher_count: ClassVar[tuple[int, int | None]] = (0, None)
    """The least and the most frozen teachers that it takes; None: any number."""
    follower: ClassVar[Follower | None] = None
    """If given, each network has one; its nodes come after those of the networks."""
    takes_twins: ClassVar[bool] = True
    """Whether a twin without edges would learn from the labels alone, and none has a follower."""
    takes_peers: ClassVar[bool] = True
    """Whether networks that train may teach each other."""
    needs_epochs: ClassVar[bool] = False
    """Whether anything depends on where an epoch ends."""
    uses_examples: ClassVar[bool] = False
    """Whether it looks at single examples' past, so that the number of examples must be known."""

    def __post_init__(self) -> None:
        require_flag("method.own_augmentation", self.own_augmentation)
        require_flag("method.second_forward", self.second_forward)

    @classmethod
    def from_settings(
        cls, shape: Any, networks: Sequence[str], options: Mapping[str, Any], teachers: int = 0
    ) -> "Method":
        """Builds the method for named networks.

        Args:
          shape: a shape of `graph.make_graph`, edges, or "own" for the paper's; with teachers,
            "own" lets each of them teach each network, and no network another.
          networks: their names.
          options: fields of the method but the graph.
          teachers: how many frozen teachers there are.

        Raises:
          SettingError: if the graph or an option cannot work.
        """
        if shape == "own":
            shape = "none" if teachers else cls.own_graph
        named = isinstance(shape, str) and not shape.startswith(("(", "["))
        if len(networks) < (2 if named and shape != "none" else 1):
            remedy = "networks that teach each other are at least 2; name them behind a colon, "
            remedy += "--config=FILE:resnet8,resnet14, or set config.graph='none'"
            raise SettingError("networks", tuple(networks), remedy)
        graph = cls.graph_of(shape, len(networks), teachers)
        return cls(graph=graph, teachers=teachers, **options)

    @classmethod
    def graph_of(cls, shape: Any, networks: int, teachers: int) -> Graph:
        """The graph for so many networks and teachers; a follower teaches its own network."""
        graph = make_graph(shape, networks, teachers)
        if cls.follower is None:
            return graph
        graph = graph.with_room(networks, networks)
        past = tuple((networks + k, k) for k in range(networks))
        return Graph(graph.count, past + graph.edges)

    @classmethod
    def preparation(cls, options: Mapping[str, Any]) -> tuple[dict[str, Any], float] | None:
        """What is trained on each teacher before: method settings, and a share of the duration.

        options: all fields of the method that a setting may give. The layers that it trains are
        those of the teacher's `projections` that have the same names.
        """
        return None

    @property
    def network_count(self) -> int:
        """How many networks the method trains."""
        return (self.graph.count - self.teachers) // (2 if self.follower else 1)

    def learns(self, k: int) -> bool:
        """Whether losses are asked for at node k, which may be one of a teacher."""
        return k < self.graph.count - self.teachers

    @property
    def needs_progress(self) -> bool:
        """Whether a loss depends on how much of the run is done."""
        return False

    def branch(self, name: str, network: nn.Module) -> nn.Module:
        """The network that is trained in place of the one asked for."""
        return network

    def init_memory(self, examples: int, classes: int) -> Any:
        """Arrays of the method that are kept during a run, a pytree; none.

        examples: of the training set; 0 if the method does not use them.
        """
        return {}

    def remember(self, memory: Any, logits: Sequence[jax.Array], index: jax.Array) -> Any:
        """The memory after a step, if the method `uses_examples`.

        logits: per node, [batch, classes], of the whole batch; index: [batch], as in `Context`.
        """
        return memory

    def heldout_sums(self, logits: Sequence[jax.Array], label: jax.Array, mask: jax.Array) -> Any:
        """What `update_memory` wants to know about a batch of the held-out set, as sums.

        Called once an epoch for every batch, if `uses_heldout`. logits: per node, [batch, classes];
        mask: [batch], False for padding.
        """
        return {}

    def update_memory(self, memory: Any, sums: Any) -> Any:
        """The memory for the next epoch, from the sums over the held-out set."""
        return memory

    @property
    def uses_heldout(self) -> bool:
        """Whether the memory is renewed once an epoch from the held-out set."""
        return False

    def projections(self, k: int, shapes: Sequence[Outputs]) -> dict[str, nn.Module]:
        """Layers put on top of network k's outputs and trained with it, by name.

        `shapes` are the outputs of all networks as shapes, without values.
        """
        return {}

    def project(self, k: int, outputs: Outputs, heads: Heads) -> dict[str, jax.Array]:
        """Applies the projections of k to its own outputs."""
        return {name: head(outputs.features) for name, head in heads.items()}

    def discriminators(self, k: int, shapes: Sequence[Outputs]) -> dict[str, nn.Module]:
        """The discriminators that network k owns, by name."""
        return {}

    def logit_terms(self, k: int, outputs: Sequence[Outputs], context: Context) -> Terms:
        """The losses that train all of k's network by one optimizer: on its logits, mostly."""
        raise NotImplementedError

    def feature_terms(self, k: int, outputs: Sequence[Outputs], discriminators: Heads) -> Terms:
        """The losses on the feature map of k; its discriminators are constants here."""
        return {}, {}

    def discriminator_terms(
        self, k: int, outputs: Sequence[Outputs], discriminators: Heads
    ) -> Terms:
        """The losses of the discriminators of k; all outputs are constants here."""
        return {}, {}


def average(values: Sequence[jax.Array]) -> jax.Array:
    """The mean over sources of per-example values, [batch]."""
    return jnp.mean(jnp.stack(values), axis=0)
