"""FitNet: Hints for Thin Deep Nets.

Romero, Ballas, Kahou, Chassang, Gatta, Bengio; ICLR 2015; arXiv 1412.6550. A regressor r brings the
student's map at the end of a middle stage to the shape of the teacher's:

  CE(y, softmax(z)) + weight * mean of (r(h_student) - h_teacher)² [+ KD]

Assumed: hint and labels are learned together, by one optimizer (the paper trains the lower half on
hints first); the regressor is `heads.Transfer`, a 1x1 convolution; weight 100; the second stage.
"""

import dataclasses
from collections.abc import Sequence

import jax
from flax import linen as nn

from afd_jax import losses
from afd_jax.errors import SettingError, require_number
from afd_jax.networks.heads import Transfer
from afd_jax.methods.method import Heads
from afd_jax.methods.hints import HintMethod, stages_of
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class FitNet(HintMethod):
    """A student's middle map learns to predict its teachers'; the mean over several.

    Attributes:
      stage: which of the stages, counted from 1.
      hint_weight: of the squared difference, a mean over the map's elements.

    Raises:
      SettingError: if a number is out of range, or a network has no such stage.
    """

    hint_weight: float = 100.0
    stage: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("method.stage", self.stage, least=1, whole=True)

    def projections(self, k: int, shapes: Sequence[Outputs]) -> dict[str, nn.Module]:
        """A regressor to each source's map."""
        if not self.is_taught(k):
            return {}
        self._map(k, shapes[k])
        return {
            f"from_{j}": Transfer(self._map(j, shapes[j]).shape[1:]) for j in self.graph.sources(k)
        }

    def project(self, k: int, outputs: Outputs, heads: Heads) -> dict[str, jax.Array]:
        """Applies the regressors to the stage's map."""
        return {name: head(self._map(k, outputs)) for name, head in heads.items()}

    def distances(self, k: int, outputs: Sequence[Outputs]) -> list[jax.Array]:
        """Mean squared differences."""
        return [
            losses.l2_alignment(outputs[k].extras[f"from_{j}"], self._map(j, outputs[j]))
            for j in self.graph.sources(k)
        ]

    def _map(self, k: int, outputs: Outputs) -> jax.Array:
        maps = stages_of(k, outputs)
        if self.stage > len(maps):
            remedy = f"node {k}'s network has {len(maps)} stages; choose one of them"
            raise SettingError("method.stage", self.stage, remedy)
        return maps[self.stage - 1]
