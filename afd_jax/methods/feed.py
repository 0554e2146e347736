"""FEED: Feature-level Ensemble for Knowledge Distillation.

Park, Kwak; ECAI 2020; arXiv 1909.10754. N frozen teachers with last maps x_n; a student with last
map x_s and one non-linear transformation for each teacher, which is dropped after training:

  CE(y, softmax(z)) + weight * sum over n of
      | x_n / |x_n|_2  -  NTL_n(x_s) / |NTL_n(x_s)|_2 |_1

The parallel form (pFEED) has several teachers; the sequential one (sFEED) has the same network,
one generation before, as its only teacher (`config.generations`). The weight is not known to us.
Assumed: the L1 norm as a mean over the D elements, with factor transfer's weight of 500; beside the
paper's sum that is weight / D (0.122 for maps of 8x8x64).
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from afd_jax import losses
from afd_jax.errors import SettingError, one_of
from afd_jax.networks.heads import NonLinearTransformation
from afd_jax.methods.hints import HintMethod
from afd_jax.networks.outputs import Outputs

NORMS = ("mean", "sum")


@dataclasses.dataclass(frozen=True)
class FEED(HintMethod):
    """A student's transformed maps learn its teachers' maps, all of them at once.

    Attributes:
      hint_weight: of the sum over teachers (assumed).
      norm: "mean" or "sum" over a map's elements.

    Raises:
      SettingError: if a number is out of range or the norm unknown.
    """

    hint_weight: float = 500.0
    norm: str = "mean"

    hint: ClassVar[str] = "reconstruction"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.norm not in NORMS:
            raise SettingError("method.norm", self.norm, one_of(self.norm, NORMS))

    def projections(self, k: int, shapes: Sequence[Outputs]) -> dict[str, nn.Module]:
        """A transformation to each source's map."""
        if not self.is_taught(k):
            return {}
        maps = {j: shapes[j].features.shape[1:] for j in self.graph.sources(k)}
        return {
            f"from_{j}": NonLinearTransformation((channels,) * 3, (height, width))
            for j, (height, width, channels) in maps.items()
        }

    def distances(self, k: int, outputs: Sequence[Outputs]) -> list[jax.Array]:
        """L1 distances of maps of length 1: the errors of reconstruction."""
        pairs = [
            (outputs[k].extras[f"from_{j}"], outputs[j].features) for j in self.graph.sources(k)
        ]
        return [
            losses.normalized_l1_alignment(own, x) / (1 if self.norm == "sum" else x[0].size)
            for own, x in pairs
        ]

    def combine(self, distances: jax.Array) -> jax.Array:
        """Their sum, without 1/N."""
        return jnp.sum(distances, axis=0)
