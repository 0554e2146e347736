"""Direct alignment of feature maps, by L1 or L2 distance: what AFD's adversarial loss replaces.

A baseline of AFD (Chung, Park, Kim, Kwak; ICML 2020), with and without distillation of logits:

  logit loss      CE(y, softmax(z_k)) [+ T² KL(softmax(z_j / T) || softmax(z_k / T))]
  feature loss    the mean of |T_k(G_k(x)) - T_j(G_j(x))|, or of its square

The source's map is a constant. That the feature loss has AFD's feature optimizer, that it is a mean
over the map's elements, and its weight of 1 are assumed.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from afd_jax import losses
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.maps import distances, transfer
from afd_jax.methods.method import Method, Terms, View

DISTANCES = {"l1": losses.l1_alignment, "l2": losses.l2_alignment}


@dataclasses.dataclass(frozen=True)
class Alignment(Method):
    """Each network moves its feature map towards its sources'; averaged over several sources.

    Attributes:
      distance: "l1" or "l2".
      alignment_weight: of the distance (assumed).
      transfer: layer where shapes differ, "convolutional" or one's own, made with `shape`.
      temperature: T of the logit loss (3 is assumed, as for AFD).
      distillation_weight: of the logit loss's divergence; 0 leaves it out.
      standardize: compare logits without their shift and scale (LSKD, `losses.standardize`).
    """

    graph: ClassVar[str] = "cyclic"

    temperature: float = soft.temperature(3.0)
    distillation_weight: float = soft.weight(1.0)
    standardize: bool = soft.standardize()
    distance: str = options.choice("l1", DISTANCES)
    alignment_weight: float = soft.weight(1.0)
    transfer: Any = options.head("convolutional")

    def heads(self, own: View) -> Mapping[str, Any]:
        """A transfer layer where shapes differ."""
        return transfer(own, self.transfer) if self.alignment_weight else {}

    def node(self, own: View, batch: Batch) -> Terms:
        """Cross-entropy."""
        return Terms(logit=soft.labels(own.logits, batch))

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The softened predictions and the distance of the maps."""
        terms = soft.predictions(self, own, source)
        if self.alignment_weight:
            apart = DISTANCES[self.distance](own.map, source.map)
            terms += Terms(
                feature={"alignment": self.alignment_weight * apart},
                metrics=distances(own.map, source.map),
            )
        return terms
