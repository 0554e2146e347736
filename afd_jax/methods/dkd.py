"""DKD: Decoupled Knowledge Distillation.

Zhao, Cui, Song, Qiu, Liang; CVPR 2022; arXiv 2203.08679. The divergence of `kd` has two parts, on
the label's class against all others (b) and among the others (p^), which there counts for what the
teacher leaves to them; here both weights are constants. For student s and teacher t, in epoch e
from 1:

  c CE(y, softmax(z)) + min(e / 20, 1) T² [a KL(b_t || b_s) + b KL(p^_t || p^_s)]

c = a = 1, b = 8, T = 4 (mdistiller, the authors' code). b = 2 for ResNet-56 to 20 and ResNet-110 to
32, and 6 for WRN-40-2 to 16-2 and 40-1, VGG-13 to 8 and to MobileNetV2.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from afd_jax import losses
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.method import Method, Terms, View


@dataclasses.dataclass(frozen=True)
class DKD(Method):
    """Each network learns from the labels and from two parts of what its teachers predict.

    Attributes:
      temperature: T.
      label_weight: c, of the cross-entropy of a network that is taught.
      target_class_weight: a; 0 leaves the part out.
      other_classes_weight: b; 0 leaves the part out.
      warm_up: epochs until both have their full weight; 0 for none.
      standardize: compare logits without their shift and scale (LSKD, `losses.standardize`).
    """

    teachers: ClassVar[tuple[int, int | None]] = (1, None)
    whole_images: ClassVar[str | None] = "sets the one class of the label apart from the others"

    temperature: float = soft.temperature(4.0)
    label_weight: float = soft.weight(1.0)
    target_class_weight: float = soft.weight(1.0)
    other_classes_weight: float = soft.weight(8.0)
    warm_up: float = options.number(20.0, least=0)
    standardize: bool = soft.standardize()

    def node(self, own: View, batch: Batch) -> Terms:
        """The weighted cross-entropy."""
        return soft.taught(self, own, batch)

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The two parts, with the weight of this epoch."""
        logits, target = own.logits, source.logits
        if self.standardize:
            logits, target = losses.standardize(logits), losses.standardize(target)
        parts = {
            "target_class": (losses.target_class_kl, self.target_class_weight),
            "other_classes": (losses.other_classes_kl, self.other_classes_weight),
        }
        rise = jnp.minimum((batch.epoch + 1) / self.warm_up, 1) if self.warm_up else 1.0
        return Terms(
            logit={
                name: rise * weight * kl(logits, target, batch.label, temperature=self.temperature)
                for name, (kl, weight) in parts.items()
                if weight
            }
        )
