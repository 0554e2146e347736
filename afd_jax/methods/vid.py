"""VID: Variational Information Distillation for Knowledge Transfer.

Ahn, Hu, Damianou, Lawrence, Dai; CVPR 2019; arXiv 1904.05835, as in the authors' code and the
widespread comparison (RepDistiller). From the student's map at the end of a stage, a regressor
predicts the teacher's, element by element a Gaussian of mean m and a variance v for each channel:

  CE(y, softmax(z)) + sum over stages of mean of 1/2 [(h_teacher - m)² / v + log v] [+ KD]
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.maps import paired_stages, smaller
from afd_jax.methods.method import Method, Terms, View
from afd_jax.networks.heads import GaussianRegressor


@dataclasses.dataclass(frozen=True)
class VID(Method):
    """A student's maps tell as much as they can of its teachers'; the mean over several.

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
    standardize: bool = soft.standardize()
    label_weight: float = soft.weight(1.0)
    distillation_weight: float = soft.weight(0.0)
    hint_weight: float = soft.weight(1.0)
    stages: Sequence[int] = options.numbers((), empty=True, whole=True)
    teacher_stages: Sequence[int] = options.numbers((), empty=True, whole=True)

    def heads(self, own: View) -> Mapping[str, Any]:
        """A regressor from each stage to each source's."""
        if not self.hint_weight:
            return {}
        return {
            f"pair{n}_from_{source.name}": GaussianRegressor(target.shape[-1])
            for source in own.sources
            for n, (_, target) in enumerate(self._pairs(own, source), 1)
        }

    def node(self, own: View, batch: Batch) -> Terms:
        """The weighted cross-entropy."""
        return soft.taught(self, own, batch)

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The negative log-likelihoods, and the softened predictions.

        Raises:
          SettingError: if the numbers of stages differ, and none are chosen.
        """
        terms = soft.predictions(self, own, source)
        if not self.hint_weight:
            return terms
        surprises = []
        for n, pair in enumerate(self._pairs(own, source), 1):
            ours, theirs = smaller(*pair)
            predicted = own.heads[f"pair{n}_from_{source.name}"](ours)
            surprises.append(_surprise(predicted, theirs))
        surprise = jnp.sum(jnp.stack(surprises), axis=0)
        return terms + Terms(
            logit={"information": self.hint_weight * surprise},
            metrics={f"information_from_{source.name}": surprise},
        )

    def _pairs(self, own: View, source: View) -> list[tuple[jax.Array, jax.Array]]:
        return paired_stages(own, source, self.stages, self.teacher_stages)


def _surprise(predicted: jax.Array, target: jax.Array) -> jax.Array:
    """Negative log-likelihood without its constant, mean over elements: [batch]."""
    mean, variance = jnp.split(predicted, 2, axis=-1)
    each = (jnp.square(target - mean) / variance + jnp.log(variance)) / 2
    return jnp.mean(each, axis=(1, 2, 3))
