"""AFD: Feature-map-level Online Adversarial Knowledge Distillation.

Chung, Park, Kim, Kwak; ICML 2020; arXiv 2002.01775. For network k with source j:

  logit loss          CE(y, softmax(z_k)) + T² KL(softmax(z_j / T) || softmax(z_k / T))
  generator loss      (1 - D_k(T_k(G_k(x))))²
  discriminator loss  (1 - D_k(T_j(G_j(x))))² + D_k(T_k(G_k(x)))²

G is everything before the classifier, T the transfer layer where the maps' shapes differ, D_k
belongs to network k and takes its own map for fake and its source's for real. The logit loss steps
the network's logit optimizer, the generator loss its feature optimizer.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from flax import linen as nn

from afd_jax.errors import require_list, require_number
from afd_jax.networks.heads import Discriminator
from afd_jax.methods.critic import OBJECTIVES, require_objective, verdicts
from afd_jax.methods.method import Heads, Terms, average
from afd_jax.methods.maps import MapMethod, common_map
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class AFD(MapMethod):
    """Logit distillation and adversarial feature-map distillation along the edges of a graph.

    With several sources, a node's losses are averaged over them, and it has one discriminator for
    each; the paper's cycle gives every node one.

    Attributes:
      temperature: T of the logit loss (3 is assumed).
      distillation_weight: of the KL term; the paper adds plainly (1). 0 leaves it out.
      adversarial_weight: of the generator loss; the paper adds plainly (1). 0 leaves out the
        discriminators altogether.
      objective: a name in `adversarial.OBJECTIVES`; the paper's is "least_squares".
      widths, kernel, stride, slope: of the discriminators (assumed; see `heads.Discriminator`).

    Raises:
      SettingError: if a number is out of range or the objective unknown.
    """

    own_graph: ClassVar[str] = "cyclic"

    adversarial_weight: float = 1.0
    objective: str = "least_squares"
    widths: Sequence[int] = (64, 128)
    kernel: int = 3
    stride: int = 2
    slope: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("method.adversarial_weight", self.adversarial_weight, least=0)
        require_number("method.kernel", self.kernel, least=1, whole=True)
        require_number("method.stride", self.stride, least=1, whole=True)
        require_number("method.slope", self.slope)
        require_list("method.widths", self.widths)
        for width in self.widths:
            require_number("method.widths", width, least=1, whole=True)
        require_objective(self.objective)

    def compares_maps(self) -> bool:
        """Unless the adversarial loss is left out."""
        return self.adversarial_weight > 0

    def discriminators(self, k: int, shapes: Sequence[Outputs]) -> dict[str, nn.Module]:
        """One for each source, named "from_<source>"."""
        if not self.adversarial_weight:
            return {}
        module = Discriminator(
            widths=tuple(self.widths),
            kernel=self.kernel,
            stride=self.stride,
            slope=self.slope,
            sigmoid=OBJECTIVES[self.objective].sigmoid,
        )
        return {_name(j): module for j in self.graph.sources(k)}

    def feature_terms(self, k: int, outputs: Sequence[Outputs], discriminators: Heads) -> Terms:
        """The generator loss; as metrics, how far the own map is from its sources'."""
        sources = self.graph.sources(k)
        if not sources or not self.adversarial_weight:
            return {}, {}
        generator = OBJECTIVES[self.objective].generator
        own = common_map(outputs[k])
        fooling = [generator(discriminators[_name(j)](own)) for j in sources]
        terms = {"generator": self.adversarial_weight * average(fooling)}
        return terms, self.map_distances(k, outputs)

    def discriminator_terms(
        self, k: int, outputs: Sequence[Outputs], discriminators: Heads
    ) -> Terms:
        """The discriminator loss; as metrics, how often real and fake are told right."""
        sources = self.graph.sources(k)
        if not sources or not self.adversarial_weight:
            return {}, {}
        objective = OBJECTIVES[self.objective]
        telling, right = [], []
        for j in sources:
            real = discriminators[_name(j)](common_map(outputs[j]))
            fake = discriminators[_name(j)](common_map(outputs[k]))
            telling.append(objective.discriminator(real, fake))
            right.append(verdicts(objective, real, fake))
        metrics = {name: average([each[name] for each in right]) for name in right[0]}
        return {"discriminator": average(telling)}, metrics


def _name(source: int) -> str:
    return f"from_{source}"
