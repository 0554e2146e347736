"""KD: Knowledge Distillation from frozen teachers; born-again networks are a case of it.

Hinton, Vinyals, Dean; 2015; arXiv 1503.02531. For a student with logits z and teachers j:

  a CE(y, softmax(z)) + b T² mean over j of KL(softmax(z_j / T) || softmax(z / T))

a = 0.1, b = 0.9, T = 4 are widespread. A born-again network (BAN; Furlanello et al., ICML 2018)
learns from a teacher like itself, with b = T = 1 and a = 0; with a = 1 it is their BAN+L.
"""

import dataclasses
from typing import ClassVar

from afd_jax.methods import soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.method import Method, Terms, View


@dataclasses.dataclass(frozen=True)
class KD(Method):
    """Each network learns from the labels and from the mean of what its teachers predict.

    Attributes:
      temperature: T.
      label_weight: a, of the cross-entropy of a network that is taught.
      distillation_weight: b; 0 leaves the divergence out.
      standardize: compare logits without their shift and scale (LSKD, `losses.standardize`).
    """

    teachers: ClassVar[tuple[int, int | None]] = (1, None)

    temperature: float = soft.temperature(4.0)
    label_weight: float = soft.weight(0.1)
    distillation_weight: float = soft.weight(0.9)
    standardize: bool = soft.standardize()

    def node(self, own: View, batch: Batch) -> Terms:
        """The weighted cross-entropy."""
        return soft.taught(self, own, batch)

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The softened predictions."""
        return soft.predictions(self, own, source)
