"""PKT: Learning Deep Representations with Probabilistic Knowledge Transfer.

Passalis, Tefas; ECCV 2018; arXiv 1803.10837, as in the authors' code, with the weight of the
widespread comparison (RepDistiller). With q_ij how much of example i's similarity to the batch goes
to example j for the teacher, and p_ij for the student, by the cosine of pooled features:

  CE(y, softmax(z)) + 30000 * mean over pairs of q_ij log(q_ij / p_ij) [+ KD]
"""

import dataclasses

from afd_jax import losses
from afd_jax.methods import soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.hints import Hinted
from afd_jax.methods.method import Terms, View


@dataclasses.dataclass(frozen=True)
class PKT(Hinted):
    """A student's examples have the neighbours that its teachers give them; the mean over several.

    Attributes:
      hint_weight: of the mean over pairs; 0 leaves it out.
    """

    hint_weight: float = soft.weight(30000.0)

    def hint(self, own: View, source: View, batch: Batch) -> Terms:
        """The neighbourhoods' divergence."""
        apart = losses.probabilistic_transfer(
            batch.whole(own.pooled), batch.whole(source.pooled), rows=batch.place
        )
        return self.weighed("neighbours", source, apart)
