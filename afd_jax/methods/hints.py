"""What methods on the feature maps of frozen teachers share: one distance, added to the others."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from afd_jax.errors import SettingError, require_number
from afd_jax.methods.method import Context, Terms
from afd_jax.methods.kd import KD
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class HintMethod(KD):
    """A student learns from labels and maps, by one optimizer; from logits too, if that is wanted.

    Attributes:
      hint_weight: of the distance between maps; 0 leaves it out.
      label_weight, distillation_weight, temperature: as in `KD`; its divergence is left out.

    Raises:
      SettingError: if a number is out of range.
    """

    label_weight: float = 1.0
    distillation_weight: float = 0.0
    hint_weight: float = 1.0

    hint: ClassVar[str] = "hint"
    """What the loss is called in the records."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("method.hint_weight", self.hint_weight, least=0)

    def distances(self, k: int, outputs: Sequence[Outputs]) -> list[jax.Array]:
        """How far the student is from each of its sources, each [batch]."""
        raise NotImplementedError

    def combine(self, distances: jax.Array) -> jax.Array:
        """One loss [batch] from those of all sources [sources, batch]: their mean."""
        return jnp.mean(distances, axis=0)

    def logit_terms(self, k: int, outputs: Sequence[Outputs], context: Context) -> Terms:
        """As in `KD`, and the weighted distance; as metrics, the distance from each source."""
        terms, metrics = super().logit_terms(k, outputs, context)
        if self.is_taught(k):
            distances = self.distances(k, outputs)
            terms[self.hint] = self.hint_weight * self.combine(jnp.stack(distances))
            sources = self.graph.sources(k)
            pairs = zip(sources, distances, strict=True)
            metrics |= {f"{self.hint}_from_{j}": distance for j, distance in pairs}
        return terms, metrics

    def is_taught(self, k: int) -> bool:
        """Whether node k learns from anybody's maps."""
        return bool(self.graph.sources(k) and self.hint_weight)


def stages_of(k: int, outputs: Outputs) -> tuple[jax.Array, ...]:
    """The maps at the ends of the stages of node k's network.

    Raises:
      SettingError: if it returns none.
    """
    if not outputs.stages:
        remedy = "returns no maps of its stages; give them as Outputs.stages"
        raise SettingError("networks", f"node {k}", remedy)
    return outputs.stages
