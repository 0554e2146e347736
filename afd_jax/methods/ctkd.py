"""CTKD: Curriculum Temperature for Knowledge Distillation.

Li, Li, Yang, Zhao, Song, Luo, Li, Yang; AAAI 2023; arXiv 2211.16231. The temperature of `kd` is
learned against the student: with one number u for each network that is taught,

  T = 1 + 20 sigmoid(u),   a CE(y, softmax(z)) + b T² KL(softmax(z_t / T) || softmax(z / T))

where the gradient that u gets is multiplied by -w (1 - cos(pi min(e / 10, 1))) / 2 in epoch e from
1: the temperature comes to make the divergence larger, more so from epoch to epoch. a = 0.1,
b = 0.9, w = 1, and u = 1 at first, so that T is 15.6 (the authors' code). u is moved by the
network's own logit optimizer, weight decay included, as there; T, the same for all examples, is the
code's "global" form.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.method import Method, Terms, View
from afd_jax.networks.heads import LearnedNumber


@dataclasses.dataclass(frozen=True)
class CTKD(Method):
    """Each network learns from its teachers at a temperature that it finds hard.

    Attributes:
      least_temperature: of T.
      temperature_range: how far above it T may be.
      label_weight: a, of the cross-entropy of a network that is taught.
      distillation_weight: b; 0 leaves the divergence out.
      adversarial_weight: w; with 0, weight decay alone moves u.
      rise: epochs until the gradient has its full weight; 0 for none.
      standardize: compare logits without their shift and scale (LSKD, `losses.standardize`).
    """

    teachers: ClassVar[tuple[int, int | None]] = (1, None)

    least_temperature: float = soft.temperature(1.0)
    temperature_range: float = options.number(20.0, least=0, most=1e4)
    label_weight: float = soft.weight(0.1)
    distillation_weight: float = soft.weight(0.9)
    adversarial_weight: float = soft.weight(1.0)
    rise: float = options.number(10.0, least=0)
    standardize: bool = soft.standardize()

    def heads(self, own: View) -> Mapping[str, Any]:
        """The number u."""
        wanted = self.distillation_weight and own.sources
        return {"temperature": LearnedNumber(start=1.0)} if wanted else {}

    def node(self, own: View, batch: Batch) -> Terms:
        """The weighted cross-entropy."""
        return soft.taught(self, own, batch)

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The softened predictions; their temperature as a metric."""
        if not self.distillation_weight:
            return Terms()
        number = own.heads["temperature"](own.logits)
        constant = jax.lax.stop_gradient(number)
        number = constant - self._weight(batch) * (number - constant)
        temperature = self.least_temperature + self.temperature_range * jax.nn.sigmoid(number)
        kl = soft.divergence(
            own.logits,
            source.logits,
            temperature=temperature,
            weight=self.distillation_weight,
            standardize=self.standardize,
        )
        metrics = {"temperature": jnp.broadcast_to(temperature, kl.shape)}
        return Terms(logit={"distillation": kl}, metrics=metrics)

    def _weight(self, batch: Batch) -> jax.Array | float:
        """Of the reversed gradient, in this epoch."""
        if not self.rise:
            return self.adversarial_weight
        risen = jnp.minimum((batch.epoch + 1) / self.rise, 1)
        return self.adversarial_weight * (1 - jnp.cos(jnp.pi * risen)) / 2
