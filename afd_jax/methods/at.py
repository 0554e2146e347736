"""AT: Attention Transfer.

Zagoruyko, Komodakis; ICLR 2017; arXiv 1612.03928; activation-based, as in the authors' code. With
the attention A of a map, the mean over channels of its squares, divided by its length:

  CE(y, softmax(z)) + 1000 * sum over stages of mean of (A(h_student) - A(h_teacher))² [+ KD]
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp

from afd_jax import losses
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.maps import paired_stages, smaller
from afd_jax.methods.method import Method, Terms, View


@dataclasses.dataclass(frozen=True)
class AT(Method):
    """A student learns where its teachers look, at the ends of stages; the mean over several.

    Attributes:
      hint_weight: of the sum over stages; 0 leaves it out.
      stages: those of the student, counted from 1, or from the last by negative numbers; all if
        empty.
      teacher_stages: those of the teacher, in the same order; the same numbers if empty.
      label_weight, distillation_weight, standardize, temperature: as in `KD`; its divergence is
        left out.
    """

    teachers: ClassVar[tuple[int, int | None]] = (1, None)

    temperature: float = soft.temperature(4.0)
    label_weight: float = soft.weight(1.0)
    distillation_weight: float = soft.weight(0.0)
    standardize: bool = soft.standardize()
    hint_weight: float = soft.weight(1000.0)
    stages: Sequence[int] = options.numbers((), empty=True, whole=True)
    teacher_stages: Sequence[int] = options.numbers((), empty=True, whole=True)

    def node(self, own: View, batch: Batch) -> Terms:
        """The weighted cross-entropy."""
        return soft.taught(self, own, batch)

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The attention's distances, and the softened predictions.

        Raises:
          SettingError: if the numbers of stages differ, and none are chosen.
        """
        terms = soft.predictions(self, own, source)
        if not self.hint_weight:
            return terms
        pairs = paired_stages(own, source, self.stages, self.teacher_stages)
        each = [losses.attention_alignment(*smaller(ours, theirs)) for ours, theirs in pairs]
        apart = jnp.sum(jnp.stack(each), axis=0)
        return terms + Terms(
            logit={"attention": self.hint_weight * apart},
            metrics={f"attention_from_{source.name}": apart},
        )
