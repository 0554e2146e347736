"""PKT: Learning Deep Representations with Probabilistic Knowledge Transfer.

Passalis, Tefas; ECCV 2018; arXiv 1803.10837, as in the authors' code, with the weight of the
widespread comparison (RepDistiller). With q_ij how much of example i's similarity to the batch goes
to example j for the teacher, and p_ij for the student, by the cosine of pooled features:

  CE(y, softmax(z)) + 30000 * mean over pairs of q_ij log(q_ij / p_ij) [+ KD]
"""

import dataclasses
from typing import ClassVar

from afd_jax import losses
from afd_jax.methods import soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.method import Method, Terms, View


@dataclasses.dataclass(frozen=True)
class PKT(Method):
    """A student's examples have the neighbours that its teachers give them; the mean over several.

    Attributes:
      hint_weight: of the mean over pairs; 0 leaves it out.
      label_weight, distillation_weight, standardize, temperature: as in `KD`; its divergence is
        left out.
    """

    teachers: ClassVar[tuple[int, int | None]] = (1, None)

    temperature: float = soft.temperature(4.0)
    standardize: bool = soft.standardize()
    label_weight: float = soft.weight(1.0)
    distillation_weight: float = soft.weight(0.0)
    hint_weight: float = soft.weight(30000.0)

    def node(self, own: View, batch: Batch) -> Terms:
        """The weighted cross-entropy."""
        return soft.taught(self, own, batch)

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The neighbourhoods' divergence, and the softened predictions."""
        terms = soft.predictions(self, own, source)
        if not self.hint_weight:
            return terms
        apart = losses.probabilistic_transfer(
            batch.whole(own.pooled), batch.whole(source.pooled), rows=batch.place
        )
        return terms + Terms(
            logit={"neighbours": self.hint_weight * apart},
            metrics={f"neighbours_from_{source.name}": apart},
        )
