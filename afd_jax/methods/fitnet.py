"""FitNet: Hints for Thin Deep Nets.

Romero, Ballas, Kahou, Chassang, Gatta, Bengio; ICLR 2015; arXiv 1412.6550. A regressor r brings the
student's map at the end of a middle stage to the shape of the teacher's:

  CE(y, softmax(z)) + weight * mean of (r(h_student) - h_teacher)² [+ KD]

As in the public code of the widespread comparison (RepDistiller), hint and labels are learned
together, by one optimizer (the paper trains the lower half on hints first), with weight 100 and
the second stage. The regressor is `heads.Transfer`, a 1x1 convolution with BatchNorm and ReLU.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from afd_jax import losses
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.maps import stage
from afd_jax.methods.method import Method, Terms, View
from afd_jax.networks.heads import Transfer
from afd_jax.networks.imported import build


@dataclasses.dataclass(frozen=True)
class FitNet(Method):
    """A student's middle map learns to predict its teachers'; the mean over several.

    Attributes:
      hint_weight: of the squared difference, a mean over the map's elements; 0 leaves it out.
      stage: of the student, counted from 1, or from the last by negative numbers.
      teacher_stage: of the teacher; 0 for the same number.
      regressor: "convolutional" or one's own, made with `shape`.
      label_weight, distillation_weight, standardize, temperature: as in `KD`; its divergence is
        left out.
    """

    teachers: ClassVar[tuple[int, int | None]] = (1, None)

    temperature: float = soft.temperature(4.0)
    label_weight: float = soft.weight(1.0)
    distillation_weight: float = soft.weight(0.0)
    standardize: bool = soft.standardize()
    hint_weight: float = soft.weight(100.0)
    stage: int = options.number(2, whole=True)
    teacher_stage: int = options.number(0, whole=True)
    regressor: Any = options.head("convolutional")

    def heads(self, own: View) -> Mapping[str, Any]:
        """A regressor to each source's map."""
        if not self.hint_weight:
            return {}
        for _ in own.sources:
            stage(own, self.stage, "method.stage")
        return {
            f"from_{source.name}": self._regressor(self._target(source).shape[1:])
            for source in own.sources
        }

    def node(self, own: View, batch: Batch) -> Terms:
        """The weighted cross-entropy."""
        return soft.taught(self, own, batch)

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The mean squared difference, and the softened predictions."""
        terms = soft.predictions(self, own, source)
        if not self.hint_weight:
            return terms
        predicted = own.heads[f"from_{source.name}"](stage(own, self.stage, "method.stage"))
        apart = losses.l2_alignment(predicted, self._target(source))
        return terms + Terms(
            logit={"hint": self.hint_weight * apart},
            metrics={f"hint_from_{source.name}": apart},
        )

    def _regressor(self, shape: tuple[int, ...]) -> Any:
        if self.regressor == "convolutional":
            return Transfer(shape)
        return build("method.regressor", self.regressor, shape=shape)

    def _target(self, source: View) -> Any:
        return stage(source, self.teacher_stage or self.stage, "method.teacher_stage")
