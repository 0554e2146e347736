"""RKD: Relational Knowledge Distillation.

Park, Kim, Lu, Cho; CVPR 2019; arXiv 1904.05068, with the weights of the widespread comparison
(RepDistiller; 1:2 as published). With d the distances of a batch's pooled features over their mean,
cos the angles at example i between j and k, and l the Huber loss:

  CE(y, softmax(z)) + 25 * mean over pairs of l(d_student - d_teacher)
                    + 50 * mean over triples of l(cos_student - cos_teacher) [+ KD]
"""

import dataclasses

from afd_jax import losses
from afd_jax.methods import soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.kd import KD
from afd_jax.methods.method import Terms, View


@dataclasses.dataclass(frozen=True)
class RKD(KD):
    """A student keeps its teachers' distances and angles between examples; the mean over several.

    Attributes:
      distance_weight: of the distances; 0 leaves them out.
      angle_weight: of the angles; 0 leaves them out.
      label_weight, distillation_weight, standardize, temperature: as in `KD`; its divergence is
        left out.
    """

    label_weight: float = soft.weight(1.0)
    distillation_weight: float = soft.weight(0.0)
    distance_weight: float = soft.weight(25.0)
    angle_weight: float = soft.weight(50.0)

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """How distances and angles differ, and the softened predictions."""
        terms = super().edge(own, source, batch)
        for name, weight, loss in (
            ("distance", self.distance_weight, losses.relational_distance),
            ("angle", self.angle_weight, losses.relational_angle),
        ):
            if weight:
                ours, theirs = batch.whole(own.pooled), batch.whole(source.pooled)
                apart = loss(ours, theirs, rows=batch.place)
                terms += Terms(
                    logit={name: weight * apart}, metrics={f"{name}_from_{source.name}": apart}
                )
        return terms
