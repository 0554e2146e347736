"""SP: Similarity-Preserving Knowledge Distillation.

Tung, Mori; ICCV 2019; arXiv 1907.09682; weight and stage as in the widespread comparison
(RepDistiller). With G the products of all pairs of a batch's flattened maps, each row divided by
its length:

  CE(y, softmax(z)) + 3000 * mean over pairs of (G_student - G_teacher)² [+ KD]
"""

import dataclasses
from typing import ClassVar

from afd_jax import losses
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.maps import stage
from afd_jax.methods.method import Method, Terms, View


@dataclasses.dataclass(frozen=True)
class SP(Method):
    """A student finds alike what its teachers find alike; the mean over several.

    Attributes:
      hint_weight: of the mean over pairs; 0 leaves it out.
      stage: of the student, counted from 1, or from the last by negative numbers.
      teacher_stage: of the teacher; 0 for the same number.
      label_weight, distillation_weight, standardize, temperature: as in `KD`; its divergence is
        left out.
    """

    teachers: ClassVar[tuple[int, int | None]] = (1, None)

    temperature: float = soft.temperature(4.0)
    standardize: bool = soft.standardize()
    label_weight: float = soft.weight(1.0)
    distillation_weight: float = soft.weight(0.0)
    hint_weight: float = soft.weight(3000.0)
    stage: int = options.number(-1, whole=True)
    teacher_stage: int = options.number(0, whole=True)

    def node(self, own: View, batch: Batch) -> Terms:
        """The weighted cross-entropy."""
        return soft.taught(self, own, batch)

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The similarities' distance, and the softened predictions."""
        terms = soft.predictions(self, own, source)
        if not self.hint_weight:
            return terms
        ours = stage(own, self.stage, "method.stage")
        theirs = stage(source, self.teacher_stage or self.stage, "method.teacher_stage")
        apart = losses.similarity_preserving(
            batch.whole(ours), batch.whole(theirs), rows=batch.place
        )
        return terms + Terms(
            logit={"similarity": self.hint_weight * apart},
            metrics={f"similarity_from_{source.name}": apart},
        )
