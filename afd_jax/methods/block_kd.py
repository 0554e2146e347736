"""Block-wise logit distillation: stepping-stones between a student and its teacher.

Yu, Zhang, Chen, Wang, Liu, Tan, Li; 2024; arXiv 2411.01547. Stepping-stone i is the student up to
the end of its stage i, a connector, and the frozen teacher from there on; its logits are z_i. With
n stages and KL(p || q) of predictions softened by T:

  CE(y, softmax(z)) + T² KL(z_teacher || z) + sum over i = 1..n of L_i / 2^(n - i)
  L_i = T² [KL(z_teacher || z_i) + KL(z_i || z)]

So a student's maps are compared with its teacher's by what the teacher makes of them. The halving
is the authors'; they publish no code. Assumed: z_i is a constant in its divergence from z, the
weights and T, a connector of 1x1 convolution, BatchNorm and ReLU, and that the teacher's part runs
as in evaluation.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax

from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.maps import paired_stages, stage_numbers
from afd_jax.methods.method import Method, Terms, View
from afd_jax.networks.heads import Transfer


@dataclasses.dataclass(frozen=True)
class BlockKD(Method):
    """The teacher, run on from a student's stages, says what it sees in them.

    Attributes:
      stone_weight: of the sum over stepping-stones; 0 leaves them out.
      stages: those of the student, counted from 1, or from the last by negative numbers; all if
        empty.
      teacher_stages: those of the teacher that they stand for, in the same order; the same numbers
        if empty.
      label_weight, distillation_weight, standardize, temperature: as in `KD`.
    """

    teachers: ClassVar[tuple[int, int | None]] = (1, None)
    peers: ClassVar[bool] = False

    temperature: float = soft.temperature(4.0)
    standardize: bool = soft.standardize()
    label_weight: float = soft.weight(1.0)
    distillation_weight: float = soft.weight(1.0)
    stone_weight: float = soft.weight(1.0)
    stages: Sequence[int] = options.numbers((), empty=True, whole=True)
    teacher_stages: Sequence[int] = options.numbers((), empty=True, whole=True)

    def heads(self, own: View) -> Mapping[str, Any]:
        """A connector for each stage and source."""
        if not self.stone_weight:
            return {}
        return {
            f"connect{n}_from_{source.name}": Transfer(target.shape[1:])
            for source in own.sources
            for n, (_, target) in enumerate(self._pairs(own, source), 1)
        }

    def node(self, own: View, batch: Batch) -> Terms:
        """The weighted cross-entropy."""
        return soft.taught(self, own, batch)

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The softened predictions, and the stepping-stones between them."""
        terms = soft.predictions(self, own, source)
        if not self.stone_weight:
            return terms
        chosen = self.teacher_stages or self.stages
        theirs = stage_numbers(source, chosen, "method.teacher_stages")
        for n, (ours, _) in enumerate(self._pairs(own, source), 1):
            connected = own.heads[f"connect{n}_from_{source.name}"](ours)
            stone = source.after(connected, theirs[n - 1]).logits
            apart = self._apart(stone, source.logits) + self._apart(own.logits, stone)
            weight = self.stone_weight / 2 ** (len(theirs) - n)
            terms += Terms(
                logit={f"stone{n}": weight * apart},
                metrics={f"stone{n}_from_{source.name}": apart},
            )
        return terms

    def _pairs(self, own: View, source: View) -> list[tuple[jax.Array, jax.Array]]:
        return paired_stages(own, source, self.stages, self.teacher_stages)

    def _apart(self, logits: jax.Array, target: jax.Array) -> jax.Array:
        return soft.divergence(
            logits, target, temperature=self.temperature, standardize=self.standardize
        )
