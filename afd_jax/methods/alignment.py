"""Direct alignment of feature maps, by L1 or L2 distance: what AFD's adversarial loss replaces.

A baseline of AFD (Chung, Park, Kim, Kwak; ICML 2020), with and without distillation of logits:

  logit loss      CE(y, softmax(z_k)) [+ T² KL(softmax(z_j / T) || softmax(z_k / T))]
  feature loss    the mean of |T_k(G_k(x)) - T_j(G_j(x))|, or of its square

The source's map is a constant. That the feature loss has AFD's feature optimizer, that it is a mean
over the map's elements, and its weight of 1 are assumed.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from afd_jax import losses
from afd_jax.errors import SettingError, one_of, require_number
from afd_jax.methods.method import Heads, Terms, average
from afd_jax.methods.maps import MapMethod, common_map
from afd_jax.networks.outputs import Outputs

DISTANCES = {"l1": losses.l1_alignment, "l2": losses.l2_alignment}


@dataclasses.dataclass(frozen=True)
class Alignment(MapMethod):
    """Each network moves its feature map towards its sources'; averaged over several sources.

    Attributes:
      distance: "l1" or "l2".
      alignment_weight: of the distance (assumed).
      temperature: T of the logit loss (3 is assumed, as for AFD).
      distillation_weight: of the logit loss's divergence; 0 leaves it out.

    Raises:
      SettingError: if a number is out of range or the distance unknown.
    """

    own_graph: ClassVar[str] = "cyclic"

    distance: str = "l1"
    alignment_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("method.alignment_weight", self.alignment_weight, least=0)
        if self.distance not in DISTANCES:
            raise SettingError("method.distance", self.distance, one_of(self.distance, DISTANCES))

    def compares_maps(self) -> bool:
        """Unless the alignment is left out."""
        return self.alignment_weight > 0

    def feature_terms(self, k: int, outputs: Sequence[Outputs], discriminators: Heads) -> Terms:
        """The mean distance from the sources' maps; all three distances as metrics."""
        sources = self.graph.sources(k)
        if not sources or not self.alignment_weight:
            return {}, {}
        own, distance = common_map(outputs[k]), DISTANCES[self.distance]
        apart = average([distance(own, common_map(outputs[j])) for j in sources])
        return {"alignment": self.alignment_weight * apart}, self.map_distances(k, outputs)
