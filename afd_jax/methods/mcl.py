"""MCL: Mutual Contrastive Learning for visual representation learning.

Yang, An, Cai, Xu; AAAI 2022; arXiv 2104.12565, as in the authors' code. With e_k the pooled
features of network k through Linear, ReLU and Linear, divided by their length, S_kj = e_k e_jᵀ /
0.1 the similarities of all examples of the batch, C the supervised contrastive loss of such a
matrix, and D(t, s) = T² KL(softmax(t / T) || softmax(s / T)) of its rows, network k learns

  CE(y, softmax(z_k)) + 0.1 C(S_kk) + sum over j != k of
      D(S_jj, S_kk) + 0.1 [C(S_kj) + C(S_jk)] + D(S_jk, S_kj) + D(S_kj, S_jk)

where e_j and the first argument of D are constants. These are the gradients of the code's one sum
over all networks. Here an example that is alone in its class adds 0 to C (the code divides by 0);
`config.data.class_pairs` draws two images of a class, as the authors do, so that few are.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax

from afd_jax import losses
from afd_jax.errors import SettingError
from afd_jax.graph import Edge, Graph
from afd_jax.losses.vectors import direction
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.method import Method, Terms, View
from afd_jax.networks.heads import Embedding


@dataclasses.dataclass(frozen=True)
class MCL(Method):
    """Networks contrast classes by their own embeddings and by each other's.

    Attributes:
      contrast_weight: of C, own and with each source; 0 leaves them out.
      distillation_weight: of D, on similarities; 0 leaves it out.
      temperature: T of D.
      contrast_temperature: what similarities are divided by.
      size: numbers in an embedding.
    """

    teachers: ClassVar[tuple[int, int | None]] = (0, 0)

    temperature: float = soft.temperature(3.0)
    distillation_weight: float = soft.weight(1.0)
    contrast_weight: float = soft.weight(0.1)
    contrast_temperature: float = options.number(0.1, above=0)
    size: int = options.number(128, least=1, whole=True)

    def edges(self, graph: Graph, shape: Any) -> tuple[Edge, ...]:
        """All pairs, unless another shape is asked for."""
        edges = super().edges(graph, shape)
        idle = {source for source, _ in edges} - {to for _, to in edges}
        if idle and self.distillation_weight and not self.contrast_weight:
            remedy = f"nothing trains the embedding of {min(idle)!r}, which only teaches; raise it"
            raise SettingError("method.contrast_weight", self.contrast_weight, remedy)
        return edges

    def heads(self, own: View) -> Mapping[str, Any]:
        """The embedding."""
        used = self.contrast_weight or (self.distillation_weight and own.sources)
        return {"embedding": Embedding((self.size, self.size))} if used else {}

    def losses(self, own: View, sources: Sequence[View], batch: Batch) -> Terms:
        """Cross-entropy, the contrast with itself, and the sum over sources."""
        terms = Terms(logit=soft.labels(own.logits, batch))
        if not own.heads:
            return terms
        ours, labels = _everyones(own, batch), batch.whole(batch.label)
        parts = [terms, self._contrast("contrast", ours, ours, labels, batch)]
        for source in sources:
            theirs = _everyones(source, batch)
            parts += [
                self._relations("relations", (ours, ours), (theirs, theirs), batch),
                self._contrast("contrast_with_peers", ours, theirs, labels, batch),
                self._contrast("contrast_with_peers", theirs, ours, labels, batch),
                self._relations("relations_with_peers", (ours, theirs), (theirs, ours), batch),
                self._relations("relations_with_peers", (theirs, ours), (ours, theirs), batch),
            ]
        return Terms.sum(parts)

    def _contrast(
        self, name: str, one: jax.Array, other: jax.Array, labels: jax.Array, batch: Batch
    ) -> Terms:
        """The weighted C."""
        if not self.contrast_weight:
            return Terms()
        loss = losses.supervised_contrastive(
            one, labels, others=other, temperature=self.contrast_temperature, rows=batch.place
        )
        return Terms(logit={name: self.contrast_weight * loss})

    def _relations(
        self, name: str, own: Sequence[jax.Array], target: Sequence[jax.Array], batch: Batch
    ) -> Terms:
        """The weighted D of two pairs' similarities."""
        if not self.distillation_weight:
            return Terms()
        alike = [
            one[batch.place] @ other.T / self.contrast_temperature for one, other in (own, target)
        ]
        kl = soft.divergence(*alike, temperature=self.temperature, weight=self.distillation_weight)
        return Terms(logit={name: kl})


def _everyones(node: View, batch: Batch) -> jax.Array:
    """The embeddings of the whole batch, [all examples, size]."""
    return batch.whole(direction(node.head("embedding")(node.pooled)))
