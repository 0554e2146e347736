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
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from afd_jax.errors import require_list, require_number
from afd_jax.networks.heads import ProbabilityDiscriminator
from afd_jax.methods.critic import OBJECTIVES, require_objective, verdicts
from afd_jax.methods.method import Context, Follower, Heads, Terms, average
from afd_jax.methods.logits import LogitMethod
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class AIKD(LogitMethod):
    """A network learns from a finished copy of itself, to pass for it, and from its last epoch.

    Attributes:
      temperature: T (assumed).
      distillation_weight: a (assumed); 0 leaves it out.
      progressive_weight: b (assumed); 0 leaves it out.
      adversarial_weight: c (assumed); 0 leaves the discriminator out.
      objective: a name in `adversarial.OBJECTIVES`; "least_squares", "bce" or "wasserstein".
      widths, slope: of the discriminator (assumed).

    Raises:
      SettingError: if a number is out of range or the objective unknown.
    """

    temperature: float = 1.0
    progressive_weight: float = 1.0
    adversarial_weight: float = 0.1
    objective: str = "least_squares"
    widths: Sequence[int] = (64, 64)
    slope: float = 0.2

    own_graph: ClassVar[str] = "none"
    teacher_count: ClassVar[tuple[int, int | None]] = (1, None)
    follower: ClassVar[Follower | None] = Follower("last epoch of", decay=None, evaluates=True)
    needs_epochs: ClassVar[bool] = True
    takes_twins: ClassVar[bool] = False
    takes_peers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("method.progressive_weight", self.progressive_weight, least=0)
        require_number("method.adversarial_weight", self.adversarial_weight, least=0)
        require_number("method.slope", self.slope)
        require_list("method.widths", self.widths)
        for width in self.widths:
            require_number("method.widths", width, least=1, whole=True)
        require_objective(self.objective)

    def discriminators(self, k: int, shapes: Sequence[Outputs]) -> dict[str, nn.Module]:
        """One, on the probabilities."""
        if not self.adversarial_weight or not self.pretrained(k):
            return {}
        module = ProbabilityDiscriminator(
            widths=tuple(self.widths),
            slope=self.slope,
            sigmoid=OBJECTIVES[self.objective].sigmoid,
            spectral=self.objective == "wasserstein",
        )
        return {"predictions": module}

    def pretrained(self, k: int) -> list[int]:
        """The frozen networks that k learns from."""
        first = self.graph.count - self.teachers
        return [j for j in self.graph.sources(k) if j >= first]

    def target_logits(self, k: int, outputs: Sequence[Outputs], context: Context) -> list:
        """Those of the frozen networks."""
        return [outputs[j].logits for j in self.pretrained(k)]

    def logit_terms(self, k: int, outputs: Sequence[Outputs], context: Context) -> Terms:
        """Labels, the finished copy, the last epoch, and the generator loss."""
        terms, metrics = super().logit_terms(k, outputs, context)
        past = [j for j in self.graph.sources(k) if j not in self.pretrained(k)]
        if past and self.progressive_weight:
            # As much as the other divergence, but for its own weight.
            own = dataclasses.replace(self, distillation_weight=self.progressive_weight)
            distance = own.distillation(k, outputs, context, [outputs[j].logits for j in past])
            terms["progressive"] = jnp.where(context.epoch > 0, distance, 0)
        if "predictions" in context.discriminators:
            generator = OBJECTIVES[self.objective].generator
            score = context.discriminators["predictions"](jax.nn.softmax(outputs[k].logits))
            terms["generator"] = self.adversarial_weight * generator(score)
        return terms, metrics

    def discriminator_terms(
        self, k: int, outputs: Sequence[Outputs], discriminators: Heads
    ) -> Terms:
        """The discriminator loss, the mean over frozen networks; how often it is right."""
        if "predictions" not in discriminators:
            return {}, {}
        objective, telling, right = OBJECTIVES[self.objective], [], []
        for j in self.pretrained(k):
            real, fake = (
                discriminators["predictions"](jax.nn.softmax(outputs[i].logits)) for i in (j, k)
            )
            telling.append(objective.discriminator(real, fake))
            right.append(verdicts(objective, real, fake))
        metrics = {name: average([each[name] for each in right]) for name in right[0]}
        return {"discriminator": average(telling)}, metrics
