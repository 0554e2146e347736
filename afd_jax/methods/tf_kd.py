"""TF-KD: Teacher-free Knowledge Distillation.

Yuan, Tay, Li, Wang, Feng; CVPR 2020; arXiv 1909.11723. Without a teacher, a virtual one gives the
label the probability q and every other class an equal share of the rest, u; as in the authors' code
the probabilities themselves are softened, and the student is not:

  a CE(y, softmax(z)) + b KL(softmax(u / T) || softmax(z)),   a = 0.9, b = 0.1, T = 20, q = 0.99

With a teacher, a frozen copy of the network that was trained before, it is knowledge distillation
(`kd`); the authors' numbers for a post-activation ResNet-18 on CIFAR-100 are a = 0.05, b = 0.475,
T = 6, where their divergence is a mean over the 100 classes, too.
"""

import dataclasses
from typing import ClassVar

from afd_jax import losses
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.method import Method, Terms, View


@dataclasses.dataclass(frozen=True)
class TFKD(Method):
    """A network learns from the labels and from a virtual teacher, or from a copy of itself.

    Attributes:
      temperature: T.
      label_weight: a.
      distillation_weight: b; 0 leaves the divergence out.
      standardize: compare a teacher's logits without their shift and scale (LSKD,
        `losses.standardize`); nothing without a teacher.
      correct: q, the virtual teacher's probability of the label.
    """

    graph: ClassVar[str] = "none"
    teachers: ClassVar[tuple[int, int | None]] = (0, None)
    peers: ClassVar[bool] = False

    temperature: float = soft.temperature(20.0)
    label_weight: float = soft.weight(0.9)
    distillation_weight: float = soft.weight(0.1)
    standardize: bool = soft.standardize()
    correct: float = options.number(0.99, above=0, below=1)

    def node(self, own: View, batch: Batch) -> Terms:
        """The weighted cross-entropy; without teachers the divergence from the virtual one."""
        terms = Terms(logit=soft.labels(own.logits, batch, self.label_weight))
        if own.sources or not self.distillation_weight:
            return terms
        classes = own.logits.shape[-1]
        sure = losses.label_distribution(batch.targets, classes, correct=self.correct)
        kl = losses.distillation_kl(own.logits, sure / self.temperature)
        return terms + Terms(logit={"distillation": self.distillation_weight * kl})

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The softened predictions."""
        return soft.predictions(self, own, source)
