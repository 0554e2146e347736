"""VID: Variational Information Distillation for Knowledge Transfer.

Ahn, Hu, Damianou, Lawrence, Dai; CVPR 2019; arXiv 1904.05835, as in the authors' code and the
widespread comparison (RepDistiller). From the student's map at the end of a stage, a regressor
predicts the teacher's, element by element a Gaussian of mean m and a variance v for each channel:

  CE(y, softmax(z)) + sum over stages of mean of 1/2 [(h_teacher - m)² / v + log v] [+ KD]
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from afd_jax.methods import soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.hints import AtStages
from afd_jax.methods.maps import smaller
from afd_jax.methods.method import Terms, View
from afd_jax.networks.heads import GaussianRegressor


@dataclasses.dataclass(frozen=True)
class VID(AtStages):
    """A student's maps tell as much as they can of its teachers'; the mean over several.

    Attributes:
      hint_weight: of the sum over stages; 0 leaves it out.
    """

    hint_weight: float = soft.weight(1.0)

    def hint_heads(self, own: View) -> Mapping[str, Any]:
        """A regressor from each stage to each source's."""
        return {
            f"pair{n}_from_{source.name}": GaussianRegressor(target.shape[-1])
            for source in own.sources
            for n, (_, target) in enumerate(self.stage_pairs(own, source), 1)
        }

    def hint(self, own: View, source: View, batch: Batch) -> Terms:
        """The negative log-likelihoods."""
        surprises = []
        for n, pair in enumerate(self.stage_pairs(own, source), 1):
            ours, theirs = smaller(*pair)
            predicted = own.heads[f"pair{n}_from_{source.name}"](ours)
            surprises.append(_surprise(predicted, theirs))
        surprise = jnp.sum(jnp.stack(surprises), axis=0)
        return self.weighed("information", source, surprise)


def _surprise(predicted: jax.Array, target: jax.Array) -> jax.Array:
    """Negative log-likelihood without its constant, mean over elements: [batch]."""
    mean, variance = jnp.split(predicted, 2, axis=-1)
    each = (jnp.square(target - mean) / variance + jnp.log(variance)) / 2
    return jnp.mean(each, axis=(1, 2, 3))
