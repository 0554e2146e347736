"""Block-wise logit distillation: stepping-stones between a student and its teacher.

Yu, Zhang, Chen, Wang, Liu, Tan, Li; 2024; arXiv 2411.01547. Stepping-stone i is the student up to
the end of its stage i, a connector, and the frozen teacher from there on; its logits are z_i. With
n stages and KL(p || q) of predictions softened by T:

  CE(y, softmax(z)) + T² KL(z_teacher || z) + sum over i = 1..n of L_i / 2^(n - i)
  L_i = T² [KL(z_teacher || z_i) + KL(z_i || z)]

So a student's maps are compared with its teacher's by what the teacher makes of them. The halving
is the authors'; no public code is known to us. Assumed: z_i is a constant in its divergence from z,
the weights and T, a connector of 1x1 convolution, BatchNorm and ReLU, and that the teacher's part
runs as in evaluation.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax

from afd_jax.methods import soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.hints import AtStages
from afd_jax.methods.maps import stage_numbers
from afd_jax.methods.method import Terms, View
from afd_jax.networks.heads import Transfer


@dataclasses.dataclass(frozen=True)
class BlockKD(AtStages):
    """The teacher, run on from a student's stages, says what it sees in them.

    Attributes:
      hint_weight: of the sum over stepping-stones; 0 leaves them out.
    """

    peers: ClassVar[bool] = False

    distillation_weight: float = soft.weight(1.0)

    def hint_heads(self, own: View) -> Mapping[str, Any]:
        """A connector for each stage and source."""
        return {
            f"connect{n}_from_{source.name}": Transfer(target.shape[1:])
            for source in own.sources
            for n, (_, target) in enumerate(self.stage_pairs(own, source), 1)
        }

    def hint(self, own: View, source: View, batch: Batch) -> Terms:
        """The stepping-stones' divergences."""
        stages = self.teacher_stages or self.stages
        entered = stage_numbers(source, stages, "method.teacher_stages")
        terms = Terms()
        for n, (ours, _) in enumerate(self.stage_pairs(own, source), 1):
            connected = own.heads[f"connect{n}_from_{source.name}"](ours)
            stone = source.after(connected, entered[n - 1]).logits
            apart = self._apart(stone, source.logits) + self._apart(own.logits, stone)
            terms += self.weighed(f"stone{n}", source, apart, 0.5 ** (len(entered) - n))
        return terms

    def _apart(self, logits: jax.Array, target: jax.Array) -> jax.Array:
        return soft.divergence(
            logits, target, temperature=self.temperature, standardize=self.standardize
        )
