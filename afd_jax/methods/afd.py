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
from collections.abc import Mapping
from typing import Any, ClassVar

from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.critic import Critic
from afd_jax.methods.maps import distances, transfer
from afd_jax.methods.method import Method, Terms, View


@dataclasses.dataclass(frozen=True)
class AFD(Method):
    """Logit distillation and adversarial feature-map distillation along the edges of a graph.

    With several sources, a node's losses are averaged over them, and it has one discriminator for
    each; the paper's cycle gives every node one.

    Attributes:
      temperature: T of the logit loss (3 is assumed).
      distillation_weight: of the KL term; the paper adds plainly (1). 0 leaves it out.
      standardize: compare logits without their shift and scale (LSKD, `losses.standardize`).
      adversarial_weight: of the generator loss; the paper adds plainly (1). 0 leaves out the
        discriminators altogether.
      transfer: layer where shapes differ, "convolutional" or one's own, made with `shape`.
      critic: the discriminator and its loss (sizes are assumed).
    """

    graph: ClassVar[str] = "cyclic"

    temperature: float = soft.temperature(3.0)
    distillation_weight: float = soft.weight(1.0)
    standardize: bool = soft.standardize()
    adversarial_weight: float = soft.weight(1.0)
    transfer: Any = options.head("convolutional")
    critic: Critic = dataclasses.field(default=Critic())

    def heads(self, own: View) -> Mapping[str, Any]:
        """A transfer layer where shapes differ, and a discriminator for each source."""
        if not self.adversarial_weight:
            return {}
        critics = {f"critic_{source.name}": self.critic.module() for source in own.sources}
        return {**transfer(own, self.transfer), **critics}

    def node(self, own: View, batch: Batch) -> Terms:
        """Cross-entropy."""
        return Terms(logit=soft.labels(own.logits, batch))

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The softened predictions; the generator's and the discriminator's loss on the maps."""
        terms = soft.predictions(self, own, source)
        if self.adversarial_weight:
            critic = own.heads[f"critic_{source.name}"]
            told, verdicts = self.critic.tell(critic, real=source.map, fake=own.map)
            fooled = self.critic.fool(critic, own.map)
            terms += Terms(
                feature={"generator": self.adversarial_weight * fooled},
                discriminator={"discriminator": told},
                metrics={**verdicts, **distances(own.map, source.map)},
            )
        return terms
