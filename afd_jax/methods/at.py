"""AT: Attention Transfer.

Zagoruyko, Komodakis; ICLR 2017; arXiv 1612.03928; activation-based, as in the authors' code. With
the attention A of a map, the mean over channels of its squares, divided by its length:

  CE(y, softmax(z)) + 1000 * sum over stages of mean of (A(h_student) - A(h_teacher))² [+ KD]
"""

import dataclasses

import jax.numpy as jnp

from afd_jax import losses
from afd_jax.methods import soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.hints import AtStages
from afd_jax.methods.maps import smaller
from afd_jax.methods.method import Terms, View


@dataclasses.dataclass(frozen=True)
class AT(AtStages):
    """A student learns where its teachers look, at the ends of stages; the mean over several.

    Attributes:
      hint_weight: of the sum over stages; 0 leaves it out.
    """

    hint_weight: float = soft.weight(1000.0)

    def hint(self, own: View, source: View, batch: Batch) -> Terms:
        """The attention's distances."""
        pairs = self.stage_pairs(own, source)
        each = [losses.attention_alignment(*smaller(ours, theirs)) for ours, theirs in pairs]
        apart = jnp.sum(jnp.stack(each), axis=0)
        return self.weighed("attention", source, apart)
