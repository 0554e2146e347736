"""AI-KD: Adversarial learning and Implicit regularization for self-Knowledge Distillation.

Kim et al.; Knowledge-Based Systems 293, 111692, 2024; arXiv 2211.10938. The student learns from a
frozen network of its own architecture, trained before (logits z_p), and from itself as it was at
the end of the last epoch (z_e). A discriminator D on probabilities takes those of the former for
real and the student's for fake:

  CE(y, softmax(z)) + a T² KL(softmax(z_p / T) || softmax(z / T))
                    + b T² KL(softmax(z_e / T) || softmax(z / T))     from the second epoch on
                    + c (1 - D(softmax(z)))²
  D:  (1 - D(softmax(z_p)))² + D(softmax(z))²

Only the two sources and the adversarial idea are confirmed. Assumed: the weights a, b, c, T, the
losses' form, the discriminator (`heads.ProbabilityDiscriminator`), that the student's four terms
share one optimizer, and that the network of the last epoch runs as in evaluation.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from afd_jax.methods import soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.critic import Critic, ProbabilityCritic
from afd_jax.methods.method import Method, Terms, View


@dataclasses.dataclass(frozen=True)
class AIKD(Method):
    """A network learns from a finished copy of itself, to pass for it, and from its last epoch.

    Attributes:
      temperature: T (assumed).
      distillation_weight: a (assumed); 0 leaves it out.
      standardize: compare logits without their shift and scale (LSKD, `losses.standardize`).
      progressive_weight: b (assumed); 0 leaves it out.
      adversarial_weight: c (assumed); 0 leaves the discriminator out.
      critic: the discriminator and its loss (assumed).
    """

    teachers: ClassVar[tuple[int, int | None]] = (1, None)
    peers: ClassVar[bool] = False
    beside: ClassVar[str | None] = "snapshot"

    temperature: float = soft.temperature(1.0)
    distillation_weight: float = soft.weight(1.0)
    standardize: bool = soft.standardize()
    progressive_weight: float = soft.weight(1.0)
    adversarial_weight: float = soft.weight(0.1)
    critic: Critic = dataclasses.field(default=ProbabilityCritic())

    def heads(self, own: View) -> Mapping[str, Any]:
        """A discriminator of probabilities."""
        taught = any(source.role == "teacher" for source in own.sources)
        return {"critic": self.critic.module()} if self.adversarial_weight and taught else {}

    def node(self, own: View, batch: Batch) -> Terms:
        """Cross-entropy."""
        return Terms(logit=soft.labels(own.logits, batch))

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """From the last epoch a divergence; from the finished copy another, and the critic."""
        if source.role == "snapshot":
            return self._progressive(own, source, batch)
        terms = soft.predictions(self, own, source)
        if not self.adversarial_weight:
            return terms
        real, fake = jax.nn.softmax(source.logits), jax.nn.softmax(own.logits)
        critic = own.heads["critic"]
        told, verdicts = self.critic.tell(critic, real=real, fake=fake)
        fooled = self.critic.fool(critic, fake)
        return terms + Terms(
            logit={"generator": self.adversarial_weight * fooled},
            discriminator={"discriminator": told},
            metrics=verdicts,
        )

    def _progressive(self, own: View, source: View, batch: Batch) -> Terms:
        if not self.progressive_weight:
            return Terms()
        kl = soft.divergence(
            own.logits,
            source.logits,
            temperature=self.temperature,
            weight=self.progressive_weight,
            standardize=self.standardize,
        )
        return Terms(logit={"progressive": jnp.where(batch.epoch > 0, kl, 0)})
