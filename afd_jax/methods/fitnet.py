"""FitNet: Hints for Thin Deep Nets.

Romero, Ballas, Kahou, Chassang, Gatta, Bengio; ICLR 2015; arXiv 1412.6550. A regressor r brings the
student's map at the end of a middle stage to the shape of the teacher's:

  CE(y, softmax(z)) + weight * mean of (r(h_student) - h_teacher)² [+ KD]

As in the public code of the widespread comparison (RepDistiller), hint and labels are learned
together, by one optimizer (the paper trains the lower half on hints first), with weight 100 and
the second stage. The regressor is `heads.Transfer`, a 1x1 convolution with BatchNorm and ReLU.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from afd_jax import losses
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.hints import AtStage
from afd_jax.methods.method import Terms, View
from afd_jax.networks.heads import Transfer
from afd_jax.networks.imported import build


@dataclasses.dataclass(frozen=True)
class FitNet(AtStage):
    """A student's middle map learns to predict its teachers'; the mean over several.

    Attributes:
      hint_weight: of the squared difference, a mean over the map's elements; 0 leaves it out.
      regressor: "convolutional" or one's own, made with `shape`.
    """

    hint_weight: float = soft.weight(100.0)
    stage: int = options.number(2, whole=True)
    regressor: Any = options.head("convolutional")

    def hint_heads(self, own: View) -> Mapping[str, Any]:
        """A regressor to each source's map."""
        for _ in own.sources:
            self.ours(own)
        return {
            f"from_{source.name}": self._regressor(self.theirs(source).shape[1:])
            for source in own.sources
        }

    def hint(self, own: View, source: View, batch: Batch) -> Terms:
        """The mean squared difference."""
        predicted = own.heads[f"from_{source.name}"](self.ours(own))
        apart = losses.l2_alignment(predicted, self.theirs(source))
        return self.weighed("hint", source, apart)

    def _regressor(self, shape: tuple[int, ...]) -> Any:
        if self.regressor == "convolutional":
            return Transfer(shape)
        return build("method.regressor", self.regressor, shape=shape)
