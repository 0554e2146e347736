"""PCL: Peer Collaborative Learning for Online Knowledge Distillation.

Wu, Gong; AAAI 2021; arXiv 2006.04147. Branches i = 1..m on shared lower stages, each with an
augmentation of its own of every image; a linear classifier on all their pooled features is the
ensemble e; and a moving average of the whole network gives mean teachers with logits z'_j:

  CE(y, z_e) + sum over i of
      CE(y, z_i) + w(t) T² KL(softmax(z_e / T) || softmax(z_i / T))
                 + w(t) / (m - 1) sum over j != i of T² KL(softmax(z'_j / T) || softmax(z_i / T))

All targets are constants. The average's decay is min(1 - 1/(t+1), 0.999) after update t; w(t) as
for ONE. No code of the authors' is known. Assumed: the ensemble's cross-entropy trains the branches
too; the shared layers see all views as one batch; averages run with the batch's own statistics in
training (their running ones in evaluation) and see the same views as what they follow.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from afd_jax.graph import Edge, Graph
from afd_jax.methods import soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.branches import BranchMethod
from afd_jax.methods.method import Terms, View
from afd_jax.networks.branched import Combination
from afd_jax.networks.layers import Classifier
from afd_jax.networks.outputs import Outputs


class EnsembleClassifier(Combination):
    """Adds an ensemble: one linear layer on the pooled features of all branches.

    Attributes:
      classes: number of classes.
    """

    classes: int = 0

    @nn.compact
    def __call__(
        self, shared: jax.Array, branches: Sequence[Outputs], *, train: bool
    ) -> tuple[Outputs, ...]:
        """As in `Combination`."""
        maps = jnp.concatenate([branch.features for branch in branches], axis=-1)
        logits = Classifier(self.classes, name="classifier")(maps)
        return (*branches, Outputs(logits, maps))


@dataclasses.dataclass(frozen=True)
class PCL(BranchMethod):
    """Branches learn from their ensemble and from the moving averages of the other branches."""

    beside: ClassVar[str | None] = "average"

    def among(
        self, graph: Graph, branches: Sequence[str], ensembles: Sequence[str]
    ) -> tuple[Edge, ...]:
        """The ensemble teaches every branch, and so do the averages of the other branches."""
        averages = {name: graph.beside(name, "average") for name in branches}
        others = ((averages[j], i) for i in branches for j in branches if i != j)
        return (*((e, i) for e in ensembles for i in branches), *others)  # type: ignore[arg-type]

    def combination(self, classes: int) -> Combination:
        """The ensemble's classifier."""
        return EnsembleClassifier((*self.names(), "ensemble classifier"), classes=classes)

    def node(self, own: View, batch: Batch) -> Terms:
        """Cross-entropy."""
        return Terms(logit=soft.labels(own.logits, batch))

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The softened predictions of the ensemble, or of a mean teacher."""
        name = "distillation" if source.role == "ensemble" else "mean_teachers"
        return soft.rising(self, own, source.logits, batch, name=name)
