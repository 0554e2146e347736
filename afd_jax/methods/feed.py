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
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from afd_jax import losses
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.method import Method, Terms, View
from afd_jax.networks.heads import NonLinearTransformation
from afd_jax.networks.imported import build

NORMS = ("mean", "sum")


@dataclasses.dataclass(frozen=True)
class FEED(Method):
    """A student's transformed maps learn its teachers' maps, all of them at once.

    Attributes:
      hint_weight: of the sum over teachers (assumed); 0 leaves it out.
      norm: "mean" or "sum" over a map's elements.
      transformation: "convolutional" or one's own, made with `widths` and `size`.
      label_weight, distillation_weight, standardize, temperature: as in `KD`; its divergence is
        left out.
    """

    teachers: ClassVar[tuple[int, int | None]] = (1, None)

    temperature: float = soft.temperature(4.0)
    label_weight: float = soft.weight(1.0)
    distillation_weight: float = soft.weight(0.0)
    standardize: bool = soft.standardize()
    hint_weight: float = soft.weight(500.0)
    norm: str = options.choice("mean", NORMS)
    transformation: Any = options.head("convolutional")

    def heads(self, own: View) -> Mapping[str, Any]:
        """A transformation to each source's map."""
        if not self.hint_weight:
            return {}
        maps = {source.name: source.features.shape[1:] for source in own.sources}
        return {
            f"from_{name}": self._transformation((channels,) * 3, (height, width))
            for name, (height, width, channels) in maps.items()
        }

    def node(self, own: View, batch: Batch) -> Terms:
        """The weighted cross-entropy."""
        return soft.taught(self, own, batch)

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The softened predictions."""
        return soft.predictions(self, own, source)

    def losses(self, own: View, sources: Sequence[View], batch: Batch) -> Terms:
        """Beside the mean over edges, the sum of all reconstructions' errors, without 1/N."""
        terms = super().losses(own, sources, batch)
        if not self.hint_weight:
            return terms
        return terms + Terms.sum([self._reconstruction(own, source) for source in sources])

    def _transformation(self, widths: tuple[int, ...], size: tuple[int, int]) -> Any:
        if self.transformation == "convolutional":
            return NonLinearTransformation(widths, size)
        return build("method.transformation", self.transformation, widths=widths, size=size)

    def _reconstruction(self, own: View, source: View) -> Terms:
        transformed = own.heads[f"from_{source.name}"](own.features)
        apart = losses.normalized_l1_alignment(transformed, source.features)
        if self.norm == "mean":
            apart = apart / source.features[0].size
        return Terms(
            logit={"reconstruction": self.hint_weight * apart},
            metrics={f"reconstruction_from_{source.name}": apart},
        )
