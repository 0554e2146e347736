"""DIST: Knowledge Distillation from A Stronger Teacher.

Huang, You, Wang, Qian, Xu; NeurIPS 2022; arXiv 2205.10536. A student keeps the relations in its
teachers' predictions P = softmax(z_t / T), B examples by C classes, not the predictions themselves.
With its own Q = softmax(z / T) and Pearson's correlation r:

  CE(y, softmax(z)) + T² [b (1 - mean over examples of r(Q_i:, P_i:))
                        + g (1 - mean over classes of r(Q_:j, P_:j))]

The second runs over the whole batch, on all devices. The authors' code has T = b = g = 1 by
default; for CIFAR-100 it sets T = 4, b = g = 2.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from afd_jax import losses
from afd_jax.methods import soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.method import Method, Terms, View


@dataclasses.dataclass(frozen=True)
class DIST(Method):
    """Each network learns from the labels and how its teachers' predictions are related.

    Attributes:
      temperature: T.
      label_weight: of the cross-entropy of a network that is taught.
      inter_class_weight: b, of the relations among the classes of an example; 0 leaves them out.
      intra_class_weight: g, of those among the examples of a batch; 0 leaves them out.
    """

    teachers: ClassVar[tuple[int, int | None]] = (1, None)

    temperature: float = soft.temperature(1.0)
    label_weight: float = soft.weight(1.0)
    inter_class_weight: float = soft.weight(1.0)
    intra_class_weight: float = soft.weight(1.0)

    def node(self, own: View, batch: Batch) -> Terms:
        """The weighted cross-entropy."""
        return soft.taught(self, own, batch)

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The two distances; the second is the same for all examples."""
        pair = [jax.nn.softmax(view.logits / self.temperature) for view in (own, source)]
        terms, square = {}, self.temperature**2
        if self.inter_class_weight:
            rows = losses.correlation_distance(*pair)
            terms["inter_class"] = self.inter_class_weight * square * rows
        if self.intra_class_weight:
            columns = jnp.mean(losses.correlation_distance(*(batch.whole(p).T for p in pair)))
            every = jnp.broadcast_to(columns, (len(own.logits),))
            terms["intra_class"] = self.intra_class_weight * square * every
        return Terms(logit=terms)
