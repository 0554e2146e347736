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
from collections.abc import Mapping
from typing import Any

from afd_jax import losses
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.hints import Hinted
from afd_jax.methods.method import Terms, View
from afd_jax.networks.heads import NonLinearTransformation
from afd_jax.networks.imported import build

NORMS = ("mean", "sum")


@dataclasses.dataclass(frozen=True)
class FEED(Hinted):
    """A student's transformed maps learn its teachers' maps, all of them at once.

    Attributes:
      hint_weight: of the sum over teachers (assumed); 0 leaves it out.
      norm: "mean" or "sum" over a map's elements.
      transformation: "convolutional" or one's own, made with `widths` and `size`.
    """

    hint_weight: float = soft.weight(500.0)
    norm: str = options.choice("mean", NORMS)
    transformation: Any = options.head("convolutional")

    def hint_heads(self, own: View) -> Mapping[str, Any]:
        """A transformation to each source's map."""
        maps = {source.name: source.features.shape[1:] for source in own.sources}
        return {
            f"from_{name}": self._transformation((channels,) * 3, (height, width))
            for name, (height, width, channels) in maps.items()
        }

    def hint(self, own: View, source: View, batch: Batch) -> Terms:
        """The reconstruction's error; summed over the teachers, of which the mean is taken."""
        transformed = own.heads[f"from_{source.name}"](own.features)
        apart = losses.normalized_l1_alignment(transformed, source.features)
        if self.norm == "mean":
            apart = apart / source.features[0].size
        return self.weighed("reconstruction", source, apart, len(own.sources))

    def _transformation(self, widths: tuple[int, ...], size: tuple[int, int]) -> Any:
        if self.transformation == "convolutional":
            return NonLinearTransformation(widths, size)
        return build("method.transformation", self.transformation, widths=widths, size=size)
