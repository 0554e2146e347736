"""TF-KD: Teacher-free Knowledge Distillation.

Yuan, Tay, Li, Wang, Feng; CVPR 2020; arXiv 1909.11723. Without a teacher, a virtual one gives the
label the probability q and every other class an equal share of the rest, u; as in the authors' code
the probabilities themselves are softened, and the student is not:

  a CE(y, softmax(z)) + b KL(softmax(u / T) || softmax(z)),   a = 0.9, b = 0.1, T = 20, q = 0.99

With a teacher, a frozen copy of the network that was trained before, it is knowledge distillation
(`kd`); the authors' numbers for PreAct ResNet-18 on CIFAR-100 are a = 0.05, b = 0.475, T = 6.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from afd_jax import losses
from afd_jax.errors import require_number
from afd_jax.methods.method import Context, Terms
from afd_jax.methods.kd import KD
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class TFKD(KD):
    """A network learns from the labels and from a virtual teacher, or from a copy of itself.

    Attributes:
      temperature: T.
      label_weight: a.
      distillation_weight: b; 0 leaves the divergence out.
      correct: q, the virtual teacher's probability of the label.

    Raises:
      SettingError: if a number is out of range.
    """

    temperature: float = 20.0
    label_weight: float = 0.9
    distillation_weight: float = 0.1
    correct: float = 0.99

    teacher_count: ClassVar[tuple[int, int | None]] = (0, None)
    takes_twins: ClassVar[bool] = False
    takes_peers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("method.correct", self.correct, above=0, below=1)

    def logit_terms(self, k: int, outputs: Sequence[Outputs], context: Context) -> Terms:
        """As in `KD`; or the cross-entropy and the divergence from the virtual teacher."""
        if self.graph.sources(k):
            return super().logit_terms(k, outputs, context)
        logits = outputs[k].logits
        terms = {"cross_entropy": self.label_weight * losses.cross_entropy(logits, context.label)}
        if self.distillation_weight:
            classes = logits.shape[-1]
            sure = losses.label_distribution(context.label, classes, correct=self.correct)
            distance = losses.distillation_kl(logits, sure / self.temperature)
            terms["distillation"] = self.distillation_weight * distance
        return terms, {}
