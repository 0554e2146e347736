"""CS-KD: Regularizing Class-wise predictions via self-Knowledge Distillation.

Yun, Park, Lee, Shin; CVPR 2020; arXiv 2003.13964. With z' the logits of another image of the same
class, by the same network:

  CE(y, softmax(z)) + weight * T² KL(softmax(z' / T) || softmax(z / T)),   T = 4, weight 1

z' is a constant, and comes from a forward pass of its own. Ours: the BatchNorm averages that
evaluation uses are of the first pass alone (in the authors' code the second adds to them, too).
"""

import dataclasses
from typing import ClassVar

from afd_jax.methods import soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.method import Method, Terms, View


@dataclasses.dataclass(frozen=True)
class CSKD(Method):
    """Each network learns from the labels and from its own prediction of a like image.

    Attributes:
      temperature: T.
      distillation_weight: of the divergence; 0 leaves it out.
      standardize: compare logits without their shift and scale (LSKD, `losses.standardize`).
    """

    graph: ClassVar[str] = "none"
    teachers: ClassVar[tuple[int, int | None]] = (0, 0)
    peers: ClassVar[bool] = False
    pairs: ClassVar[bool] = True
    whole_images: ClassVar[str | None] = "pairs images of one class"

    temperature: float = soft.temperature(4.0)
    distillation_weight: float = soft.weight(1.0)
    standardize: bool = soft.standardize()

    def node(self, own: View, batch: Batch) -> Terms:
        """Cross-entropy, and the divergence from the prediction of the partner."""
        terms = Terms(logit=soft.labels(own.logits, batch))
        if not self.distillation_weight:
            return terms
        kl = soft.divergence(
            own.logits,
            own.partner.logits,
            temperature=self.temperature,
            weight=self.distillation_weight,
            standardize=self.standardize,
        )
        return terms + Terms(logit={"distillation": kl})
