"""What methods share that add a hint to KD: a distance of maps or of relations, weighed."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.kd import KD
from afd_jax.methods.maps import paired_stages, stage
from afd_jax.methods.method import Terms, View


@dataclasses.dataclass(frozen=True)
class Hinted(KD):
    """KD with a hint of the method's own; a subclass overrides `hint`, and `hint_heads` if need be.

    Attributes:
      hint_weight: of the hint; 0 leaves it out, heads and all.
      temperature, label_weight, distillation_weight, standardize: as in `KD`; its divergence is
        left out unless it is given a weight.
    """

    label_weight: float = soft.weight(1.0)
    distillation_weight: float = soft.weight(0.0)
    hint_weight: float = soft.weight(1.0)

    def heads(self, own: View) -> Mapping[str, Any]:
        """Those of the hint."""
        return self.hint_heads(own) if self.hint_weight else {}

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The softened predictions, and the hint."""
        terms = super().edge(own, source, batch)
        return terms + self.hint(own, source, batch) if self.hint_weight else terms

    def hint(self, own: View, source: View, batch: Batch) -> Terms:
        """What one edge carries beside the softened predictions, mostly `weighed`."""
        raise NotImplementedError

    def hint_heads(self, own: View) -> Mapping[str, Any]:
        """As `Method.heads`."""
        return {}

    def weighed(
        self, name: str, source: View, apart: jax.Array, share: float | jax.Array = 1.0
    ) -> Terms:
        """A distance [batch] as a logit loss, with a share of the weight; as it is for the log."""
        return Terms(
            logit={name: self.hint_weight * share * apart},
            metrics={f"{name}_from_{source.name}": apart},
        )


@dataclasses.dataclass(frozen=True)
class AtStage(Hinted):
    """A hint at the end of one stage.

    Attributes:
      stage: of the student, counted from 1, or from the last by negative numbers.
      teacher_stage: of the teacher; 0 for the same number.
    """

    stage: int = options.number(-1, whole=True)
    teacher_stage: int = options.number(0, whole=True)

    def ours(self, own: View) -> jax.Array:
        """The student's map there. Raises SettingError if there is no such stage."""
        return stage(own, self.stage, "method.stage")

    def theirs(self, source: View) -> jax.Array:
        """The teacher's, likewise."""
        return stage(source, self.teacher_stage or self.stage, "method.teacher_stage")


@dataclasses.dataclass(frozen=True)
class AtStages(Hinted):
    """A hint at the ends of several stages.

    Attributes:
      stages: those of the student, counted from 1, or from the last by negative numbers; all if
        empty.
      teacher_stages: those of the teacher, in the same order; the same numbers if empty.
    """

    stages: Sequence[int] = options.numbers((), empty=True, whole=True)
    teacher_stages: Sequence[int] = options.numbers((), empty=True, whole=True)

    def stage_pairs(self, own: View, source: View) -> list[tuple[jax.Array, jax.Array]]:
        """The maps that are compared.

        Raises:
          SettingError: if the numbers of stages differ, and none are chosen.
        """
        pairs = paired_stages(own, source, self.stages, self.teacher_stages)
        taught = self.taught(source)
        return [(own.stages[a - 1], taught[b - 1]) for a, b in pairs]

    def taught(self, source: View) -> Sequence[jax.Array]:
        """What a teacher has at the ends of its stages."""
        return source.stages
