"""What methods on logits share: the labels, and the softened predictions of the sources."""

import dataclasses
from collections.abc import Mapping, Sequence

from afd_jax import losses
from afd_jax.errors import require_number
from afd_jax.methods.base import Method, Terms, average
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class LogitMethod(Method):
    """A method whose networks learn from the labels and from what their sources predict.

    Attributes:
      temperature: T of the distillation loss, which is multiplied by T².
      distillation_weight: of the distillation loss; 0 leaves it out.

    Raises:
      SettingError: if a number is out of range.
    """

    temperature: float = 3.0
    distillation_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("method.temperature", self.temperature, above=0)
        require_number("method.distillation_weight", self.distillation_weight, least=0)

    def logit_terms(self, k: int, outputs: Sequence[Outputs], batch: Mapping) -> Terms:
        """Cross-entropy, and the mean distance from the sources' softened predictions."""
        own = outputs[k].logits
        terms = {"cross_entropy": losses.cross_entropy(own, batch["label"])}
        if self.graph.sources(k) and self.distillation_weight:
            kl = [
                losses.distillation_kl(own, target, temperature=self.temperature)
                for target in self.target_logits(k, outputs, batch)
            ]
            terms["distillation"] = self.distillation_weight * average(kl)
        return terms, {}

    def target_logits(self, k: int, outputs: Sequence[Outputs], batch: Mapping) -> list:
        """What k learns to predict, each [batch, classes]: its sources' logits, one by one."""
        return [outputs[j].logits for j in self.graph.sources(k)]
