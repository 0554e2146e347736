"""A discriminator with the pair of losses that it and the network play."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from afd_jax import losses
from afd_jax.methods import options
from afd_jax.networks.heads import BoundHead, Discriminator, ProbabilityDiscriminator
from afd_jax.networks.imported import build


class Objective(NamedTuple):
    """A pair of adversarial losses; `sigmoid` if they take scores in [0, 1]."""

    discriminator: Callable[[jax.Array, jax.Array], jax.Array]
    generator: Callable[[jax.Array], jax.Array]
    sigmoid: bool


OBJECTIVES = {
    "least_squares": Objective(
        losses.least_squares_discriminator, losses.least_squares_generator, sigmoid=True
    ),
    "bce": Objective(losses.bce_discriminator, losses.bce_generator, sigmoid=False),
    "hinge": Objective(losses.hinge_discriminator, losses.hinge_generator, sigmoid=False),
    "wasserstein": Objective(
        losses.wasserstein_discriminator, losses.wasserstein_generator, sigmoid=False
    ),
}


@dataclasses.dataclass(frozen=True)
class Critic:
    """A discriminator of feature maps, and the losses around it; sizes are assumed.

    Attributes:
      network: "convolutional", or a Linen or NNX module of one's own or its "package.module:Class",
        that maps [batch, height, width, channels] to scores [batch]; the sizes below are then its
        own affair. Where the loss is "least_squares" its scores must lie in [0, 1].
      loss: one of `OBJECTIVES`; AFD's is "least_squares". For "wasserstein" the network should be
        Lipschitz-bounded, which "convolutional" is not.
      widths, kernel, stride, slope: of `networks.heads.Discriminator`.
    """

    network: Any = options.head("convolutional")
    loss: str = options.choice("least_squares", OBJECTIVES)
    widths: Sequence[int] = options.numbers((64, 128), least=1, whole=True)
    kernel: int = options.number(3, least=1, whole=True)
    stride: int = options.number(2, least=1, whole=True)
    slope: float = options.number(0.2, least=0, most=1)

    block: ClassVar[str] = "critic"

    def __post_init__(self) -> None:
        options.check(self)

    def module(self) -> Any:
        """The network."""
        if self.network != "convolutional":
            return build("method.critic.network", self.network)
        return Discriminator(
            widths=self.widths,
            kernel=self.kernel,
            stride=self.stride,
            slope=self.slope,
            sigmoid=OBJECTIVES[self.loss].sigmoid,
        )

    def fool(self, critic: BoundHead, fake: jax.Array) -> jax.Array:
        """The generator's loss, [batch]; the discriminator's running statistics stay."""
        return OBJECTIVES[self.loss].generator(critic(fake, keep_statistics=False))

    def tell(
        self, critic: BoundHead, *, real: jax.Array, fake: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The discriminator's loss, [batch], and which of its scores are on the right side."""
        objective = OBJECTIVES[self.loss]
        real_scores, fake_scores = critic(real), critic(fake)
        middle = 0.5 if objective.sigmoid else 0.0
        verdicts = {
            "real_accuracy": (real_scores > middle).astype(jnp.float32),
            "fake_accuracy": (fake_scores < middle).astype(jnp.float32),
        }
        return objective.discriminator(real_scores, fake_scores), verdicts


@dataclasses.dataclass(frozen=True)
class ProbabilityCritic(Critic):
    """A discriminator of predicted probabilities.

    Attributes:
      network: "dense", or one's own, which maps [batch, classes] to scores [batch].
      loss: as in `Critic`; for "wasserstein" the layers are spectrally normalised.
      widths, slope: of `networks.heads.ProbabilityDiscriminator`.
    """

    network: Any = options.head("dense")
    widths: Sequence[int] = options.numbers((64, 64), least=1, whole=True)

    def module(self) -> Any:
        """The network."""
        if self.network != "dense":
            return build("method.critic.network", self.network)
        return ProbabilityDiscriminator(
            widths=self.widths,
            slope=self.slope,
            sigmoid=OBJECTIVES[self.loss].sigmoid,
            spectral=self.loss == "wasserstein",
        )
