"""ReviewKD: Distilling Knowledge via Knowledge Review.

Chen, Liu, Zhao, Jia; CVPR 2021; arXiv 2104.09044, as in the authors' code. From the deepest map up,
a student's maps are fused (see `networks.review`) and brought to the teacher's shapes; r_s is what
comes out for stage s, and the pooled features count as one more stage:

  CE(y, softmax(z)) + weight * min(1, epoch / 20) * sum over s of P(r_s, h_teacher,s) [+ KD]

where P is the mean squared difference at full size and averaged to 4x4, 2x2 and 1x1. The epoch
counts step by step rather than once an epoch. The student's maps are those after the ReLU that ends
a stage, the teacher's those before it. Different here: a wide ResNet teacher's are taken before its
BatchNorm (the code: between that and its ReLU); and the teacher runs as in evaluation (the code
leaves it in training mode, with the statistics of the batch).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from afd_jax import losses
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.hints import AtStages
from afd_jax.methods.method import Terms, View
from afd_jax.networks.review import Review

_MOST = 512  # channels of what is passed up


@dataclasses.dataclass(frozen=True)
class ReviewKD(AtStages):
    """A student's stages learn its teachers', the lower with the help of the deeper ones.

    Attributes:
      hint_weight: of the sum over stages; 0 leaves it out. The authors' is 1 for ResNet-110 to 32,
        0.6 for 56 to 20, 8 for 32x4 to ShuffleNetV2, and 5 for their other pairs.
      ramp_up_epochs: over which that weight rises from 0, linearly; 0 for none.
    """

    hint_weight: float = soft.weight(1.0)
    ramp_up_epochs: float = options.number(20.0, least=0)

    def taught(self, source: View) -> Sequence[jax.Array]:
        """Before the ReLU."""
        return source.preactivations

    def hint_heads(self, own: View) -> Mapping[str, Any]:
        """A review for each source."""
        width = min(_MOST, own.features.shape[-1])
        reviews = {}
        for source in own.sources:
            shapes: list[Any] = [target.shape[1:] for _, target in self.stage_pairs(own, source)]
            shapes.append((1, 1, source.features.shape[-1]))
            reviews[f"review_from_{source.name}"] = Review(width, tuple(shapes))
        return reviews

    def hint(self, own: View, source: View, batch: Batch) -> Terms:
        """The pyramids' distances."""
        ours, theirs = zip(*self.stage_pairs(own, source), _pooled(own, source), strict=True)
        reviewed = own.heads[f"review_from_{source.name}"](ours)
        each = [losses.pyramid_alignment(a, b) for a, b in zip(reviewed, theirs, strict=True)]
        apart = jnp.sum(jnp.stack(each), axis=0)
        ramp = soft.epochs_ramp(batch, self.ramp_up_epochs)
        return self.weighed("review", source, apart, ramp)


def _pooled(own: View, source: View) -> tuple[jax.Array, jax.Array]:
    """The pooled features as maps of one position."""
    return own.pooled[:, None, None], source.pooled[:, None, None]
