"""DML: Deep Mutual Learning.

Zhang, Xiang, Hospedales, Lu; CVPR 2018; arXiv 1706.00384. For network k among K:

  CE(y, softmax(z_k)) + 1/(K-1) sum over j != k of KL(softmax(z_j) || softmax(z_k))

on the graph of all pairs. All networks are updated at once, from one forward pass (assumed; the
paper's algorithm takes them in turn). AFD's authors compare with a softened form, T = 3 and T²
(assumed).
"""

import dataclasses

from afd_jax.methods import soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.method import Method, Terms, View


@dataclasses.dataclass(frozen=True)
class DML(Method):
    """Each network learns from the labels and from the mean of what its sources predict.

    Attributes:
      temperature: T; 1 as published, 3 in the form that AFD is compared with.
      distillation_weight: of the divergence; 1 as published, 0 leaves it out.
      standardize: compare logits without their shift and scale (LSKD, `losses.standardize`).
    """

    temperature: float = soft.temperature(1.0)
    distillation_weight: float = soft.weight(1.0)
    standardize: bool = soft.standardize()

    def node(self, own: View, batch: Batch) -> Terms:
        """Cross-entropy."""
        return Terms(logit=soft.labels(own.logits, batch))

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The softened predictions."""
        return soft.predictions(self, own, source)
