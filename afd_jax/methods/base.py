"""The shape of a method: a graph and the losses its edges carry, nothing else.

The generic step (`afd_jax.step`) runs every network once and hands all outputs to the method. For
each node k it asks for up to three sets of losses and does with them what a paper's update says:

  `logit_terms`          trains the network of k with its "logit" optimizer
  `feature_terms`        trains the network of k with its "feature" optimizer
  `discriminator_terms`  trains the discriminators of k with its "discriminator" optimizer

A node is what has logits: a network, or a branch of one. Only the outputs (or discriminators) of
the network that k belongs to are differentiated, so a source in another network is a constant
whatever a method writes. An optimizer touches exactly the parameters that its loss depends on.
"""

import dataclasses
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
      memory: the method's own arrays, see `Method.init_memory`.
    """

    label: jax.Array
    index: jax.Array
    progress: jax.Array | float = 0.0
    memory: Any = None


@dataclasses.dataclass(frozen=True)
class Method:
    """A method of learning from each other; subclass it and override what the paper has.

    Attributes:
      graph: who learns from whom.
      second_forward: run the networks again between the logit and the feature update.
      own_augmentation: augment the batch for each network apart; else all see the same images.
    """

    graph: Graph
    second_forward: bool = False
    own_augmentation: bool = False

    own_graph: ClassVar[str] = "all_pairs"
    """The shape of the paper's graph."""
    average_decay: ClassVar[float | None] = None
    """If given, each network is followed by a moving average of its parameters, with nodes too."""

    def __post_init__(self) -> None:
        require_flag("method.own_augmentation", self.own_augmentation)
        require_flag("method.second_forward", self.second_forward)

    @classmethod
    def from_settings(
        cls, shape: Any, networks: Sequence[str], options: Mapping[str, Any]
    ) -> "Method":
        """Builds the method for named networks.

        Args:
          shape: a shape of `graph.make_graph`, edges, or "own" for the paper's.
          networks: their names.
          options: fields of the method but the graph.

        Raises:
          SettingError: if the graph or an option cannot work.
        """
        shape = cls.own_graph if shape == "own" else shape
        if len(networks) < (1 if shape == "none" else 2):
            remedy = "networks that teach each other are at least 2; name them behind a colon, "
            remedy += "--config=FILE:resnet8,resnet14, or set config.graph='none'"
            raise SettingError("networks", tuple(networks), remedy)
        return cls(graph=make_graph(shape, len(networks)), **options)

    @property
    def network_count(self) -> int:
        """How many networks the method takes."""
        return self.graph.count

    @property
    def needs_progress(self) -> bool:
        """Whether a loss depends on how much of the run is done."""
        return False

    def branch(self, name: str, network: nn.Module) -> nn.Module:
        """The network that is trained in place of the one asked for."""
        return network

    def init_memory(self) -> Any:
        """Arrays of the method that are kept during a run, a pytree; none."""
        return {}

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
        """The losses on the logits of k."""
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
