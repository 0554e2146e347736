"""The shape of a method: a graph and the losses its edges carry, nothing else.

The generic step (`afd_jax.step`) runs every network once and hands all outputs to the method. For
each node k it asks for up to three sets of losses and does with them what a paper's update says:

  `logit_terms`          trains network k with its "logit" optimizer
  `feature_terms`        trains network k with its "feature" optimizer
  `discriminator_terms`  trains the discriminators of k with its "discriminator" optimizer

Only the outputs (or discriminators) of k are differentiated, so a source is a constant whatever a
method writes. An optimizer touches exactly the parameters that its loss depends on.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from afd_jax.errors import require_flag
from afd_jax.graph import Graph
from afd_jax.networks.outputs import Outputs

PerExample = dict[str, jax.Array]
"""Named values, one per example: each [batch]."""

Terms = tuple[PerExample, PerExample]
"""Losses, whose batch means are added up and differentiated, and metrics, which are only logged."""

Heads = Mapping[str, Callable[[jax.Array], jax.Array]]


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

    def __post_init__(self) -> None:
        require_flag("method.own_augmentation", self.own_augmentation)
        require_flag("method.second_forward", self.second_forward)

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

    def logit_terms(self, k: int, outputs: Sequence[Outputs], batch: Mapping) -> Terms:
        """The losses on the logits of k. `batch` holds "label" [batch] and "index" [batch]."""
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
