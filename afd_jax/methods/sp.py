"""SP: Similarity-Preserving Knowledge Distillation.

Tung, Mori; ICCV 2019; arXiv 1907.09682; weight and stage as in the widespread comparison
(RepDistiller). With G the products of all pairs of a batch's flattened maps, each row divided by
its length:

  CE(y, softmax(z)) + 3000 * mean over pairs of (G_student - G_teacher)² [+ KD]
"""

import dataclasses

from afd_jax import losses
from afd_jax.methods import soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.hints import AtStage
from afd_jax.methods.method import Terms, View


@dataclasses.dataclass(frozen=True)
class SP(AtStage):
    """A student finds alike what its teachers find alike; the mean over several.

    Attributes:
      hint_weight: of the mean over pairs; 0 leaves it out.
    """

    hint_weight: float = soft.weight(3000.0)

    def hint(self, own: View, source: View, batch: Batch) -> Terms:
        """The similarities' distance."""
        ours = self.ours(own)
        theirs = self.theirs(source)
        apart = losses.similarity_preserving(
            batch.whole(ours), batch.whole(theirs), rows=batch.place
        )
        return self.weighed("similarity", source, apart)
