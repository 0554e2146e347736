"""TF-KD: Teacher-free Knowledge Distillation.

Yuan, Tay, Li, Wang, Feng; CVPR 2020; arXiv 1909.11723. The teacher is a frozen copy of the
network, trained before; or, without one, a virtual teacher, which gives the label the probability q
and every other class an equal share of the rest:

  (1 - a) CE(y, softmax(z)) + a T² KL(softmax(t / T) || softmax(z / T))

t are the copy's logits, or the logarithms of the virtual teacher's probabilities. Assumed: a = 0.1,
T = 20, and the logarithm (the authors' code is remembered to soften the probabilities themselves).
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp

from afd_jax import losses
from afd_jax.errors import require_number
from afd_jax.methods.base import Context, Terms
from afd_jax.methods.logits import LogitMethod
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class TFKD(LogitMethod):
    """A network learns from the labels and from a copy of itself, or from a virtual teacher.

    Attributes:
      temperature: T (assumed).
      distillation_weight: a, at most 1 (assumed).
      correct: q, the virtual teacher's probability of the label.

    Raises:
      SettingError: if a number is out of range.
    """

    temperature: float = 20.0
    distillation_weight: float = 0.1
    correct: float = 0.99

    own_graph: ClassVar[str] = "none"
    takes_twins: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("method.distillation_weight", self.distillation_weight, least=0, most=1)
        require_number("method.correct", self.correct, above=0, below=1)

    def logit_terms(self, k: int, outputs: Sequence[Outputs], context: Context) -> Terms:
        """The weighted two terms."""
        a = self.distillation_weight
        entropy = losses.cross_entropy(outputs[k].logits, context.label)
        terms = {"cross_entropy": (1 - a) * entropy}
        if a:
            targets = self.target_logits(k, outputs, context)
            terms["distillation"] = self.distillation(k, outputs, context, targets)
        return terms, {}

    def target_logits(self, k: int, outputs: Sequence[Outputs], context: Context) -> list:
        """The copy's, or the virtual teacher's."""
        if self.graph.sources(k):
            return super().target_logits(k, outputs, context)
        classes = outputs[k].logits.shape[-1]
        return [jnp.log(losses.label_distribution(context.label, classes, correct=self.correct))]
