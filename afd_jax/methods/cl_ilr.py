"""CL-ILR: Collaborative Learning for Deep Neural Networks, shared intermediate representations.

Song, Chai; NeurIPS 2018; arXiv 1805.11761. Branches i = 1..m on shared lower stages:

  CE(y, z_i) + w(t) T² KL(softmax(mean of z_j, j != i / T) || softmax(z_i / T))

The gradient that the branches send into the shared stages is divided by m. T = 3, w(t) as for ONE
and targets that are not constants are those of OKDDip's authors, who compare with it; the paper's
own weights are not known to us.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from afd_jax.graph import Edge, Graph, all_pairs
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.branches import BranchMethod
from afd_jax.methods.method import Terms, View
from afd_jax.networks.branched import Combination


class Rescale(Combination):
    """Divides the gradient at the shared map by the number of branches."""

    def prepare(self, shared: jax.Array) -> jax.Array:
        """The same map, with a part of its gradient."""
        part = shared / len(self.nodes)
        return part - jax.lax.stop_gradient(part) + jax.lax.stop_gradient(shared)


@dataclasses.dataclass(frozen=True)
class CLILR(BranchMethod):
    """Each branch learns from the labels and from the mean of the other branches' logits."""

    gradient_to_branches: ClassVar[bool] = True

    branches: int = options.number(4, least=2, most=64, whole=True)

    def among(
        self, graph: Graph, branches: Sequence[str], ensembles: Sequence[str]
    ) -> tuple[Edge, ...]:
        """All pairs of branches."""
        return all_pairs(branches)

    def combination(self, classes: int) -> Combination:
        """The rescaling."""
        return Rescale(self.names())

    def losses(self, own: View, sources: Sequence[View], batch: Batch) -> Terms:
        """Cross-entropy, and the divergence from the others' mean."""
        others = jnp.mean(jnp.stack([source.logits for source in sources]), axis=0)
        return Terms(logit=soft.labels(own.logits, batch)) + soft.rising(
            self, own, others, batch, constant=False
        )
