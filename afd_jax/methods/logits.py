"""What methods on logits share: the labels, and the softened predictions of the sources."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax

from afd_jax import losses
from afd_jax.errors import require_number
from afd_jax.methods.method import Context, Method, Terms, average
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class LogitMethod(Method):
    """A method whose networks learn from the labels and from what their sources predict.

    Attributes:
      temperature: T of the distillation loss, which is multiplied by T².
      distillation_weight: of the distillation loss; 0 leaves it out.
      ramp_up: share of the run over which that weight rises to its full size
        (`losses.ramp_up_weight`); 0 for none.

    Raises:
      SettingError: if a number is out of range.
    """

    temperature: float = 3.0
    distillation_weight: float = 1.0
    ramp_up: float = 0.0

    constant_targets: ClassVar[bool] = True
    """Whether targets within the own network are constants; those of other networks always are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("method.temperature", self.temperature, above=0, most=1e4)
        require_number("method.distillation_weight", self.distillation_weight, least=0)
        require_number("method.ramp_up", self.ramp_up, least=0, most=1)

    @property
    def needs_progress(self) -> bool:
        """For the ramp-up."""
        return self.ramp_up > 0

    def logit_terms(self, k: int, outputs: Sequence[Outputs], context: Context) -> Terms:
        """Cross-entropy, and the mean distance from the sources' softened predictions."""
        terms = {"cross_entropy": losses.cross_entropy(outputs[k].logits, context.label)}
        if self.graph.sources(k) and self.distillation_weight:
            targets = self.target_logits(k, outputs, context)
            terms["distillation"] = self.distillation(k, outputs, context, targets)
        return terms, {}

    def distillation(
        self,
        k: int,
        outputs: Sequence[Outputs],
        context: Context,
        targets: Sequence[jax.Array],
    ) -> jax.Array:
        """The weighted distance of k's prediction from each target's, averaged; [batch]."""
        kl = [
            losses.distillation_kl(
                outputs[k].logits,
                target,
                temperature=self.temperature,
                stop_target_gradient=self.constant_targets,
            )
            for target in targets
        ]
        distance = self.distillation_weight * average(kl)
        if not self.ramp_up:
            return distance
        return losses.ramp_up_weight(context.progress, length=self.ramp_up) * distance

    def target_logits(self, k: int, outputs: Sequence[Outputs], context: Context) -> list:
        """What k learns to predict, each [batch, classes]: its sources' logits, one by one."""
        return [outputs[j].logits for j in self.graph.sources(k)]
