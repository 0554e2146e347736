"""KD: Knowledge Distillation from frozen teachers; born-again networks are a case of it.

Hinton, Vinyals, Dean; 2015; arXiv 1503.02531. For a student with logits z and teachers j:

  a CE(y, softmax(z)) + b T² mean over j of KL(softmax(z_j / T) || softmax(z / T))

a = 0.1, b = 0.9, T = 4 are widespread. A born-again network (BAN; Furlanello et al., ICML 2018)
learns from a teacher like itself, with a = b = T = 1.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from afd_jax.errors import require_number
from afd_jax.methods.method import Context, Terms
from afd_jax.methods.logits import LogitMethod
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class KD(LogitMethod):
    """Each network learns from the labels and from the mean of what its teachers predict.

    Attributes:
      temperature: T.
      label_weight: a, of the cross-entropy of a network that is taught.
      distillation_weight: b; 0 leaves the divergence out.

    Raises:
      SettingError: if a number is out of range.
    """

    temperature: float = 4.0
    label_weight: float = 0.1
    distillation_weight: float = 0.9

    own_graph: ClassVar[str] = "none"
    teacher_count: ClassVar[tuple[int, int | None]] = (1, None)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("method.label_weight", self.label_weight, least=0)

    def logit_terms(self, k: int, outputs: Sequence[Outputs], context: Context) -> Terms:
        """As in `LogitMethod`, with a weight for the cross-entropy too."""
        terms, metrics = super().logit_terms(k, outputs, context)
        if self.graph.sources(k) and self.label_weight != 1:
            terms["cross_entropy"] = self.label_weight * terms["cross_entropy"]
        return terms, metrics
