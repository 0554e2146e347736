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

from afd_jax import losses
from afd_jax.graph import Edge
from afd_jax.methods.method import Context, Follower, Terms
from afd_jax.methods.branches import BranchMethod
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

    own_augmentation: bool = True

    follower: ClassVar[Follower | None] = Follower("average of", decay=0.999)

    def make_graph(self) -> tuple[int, tuple[Edge, ...]]:
        """Nodes: branches, ensemble, averages of the branches, average of the ensemble."""
        m = self.branches
        ensemble = [(m, i) for i in range(m)]
        averages = [(m + 1 + j, i) for i in range(m) for j in range(m) if i != j]
        return 2 * (m + 1), tuple(ensemble + averages)

    def combination(self, network: nn.Module) -> Combination:
        """The ensemble's classifier."""
        return EnsembleClassifier(
            (*self.branch_names(), "ensemble classifier"), classes=network.classes
        )

    def logit_terms(self, k: int, outputs: Sequence[Outputs], context: Context) -> Terms:
        """Cross-entropy; a branch's divergences from the ensemble and from the mean teachers."""
        terms = {"cross_entropy": losses.cross_entropy(outputs[k].logits, context.label)}
        if k < self.branches and self.distillation_weight:
            ensemble, *others = [outputs[j].logits for j in self.graph.sources(k)]
            terms["distillation"] = self.distillation(k, outputs, context, [ensemble])
            terms["mean_teachers"] = self.distillation(k, outputs, context, others)
        return terms, {}
