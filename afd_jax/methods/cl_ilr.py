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
from flax import linen as nn

from afd_jax.graph import Edge, all_pairs
from afd_jax.methods.method import Context
from afd_jax.methods.branches import BranchMethod
from afd_jax.networks.branched import Combination
from afd_jax.networks.outputs import Outputs


class Rescale(Combination):
    """Divides the gradient at the shared map by the number of branches."""

    def prepare(self, shared: jax.Array) -> jax.Array:
        """The same map, with a part of its gradient."""
        part = shared / len(self.nodes)
        return part - jax.lax.stop_gradient(part) + jax.lax.stop_gradient(shared)


@dataclasses.dataclass(frozen=True)
class CLILR(BranchMethod):
    """Each branch learns from the labels and from the mean of the other branches' logits."""

    branches: int = 4

    constant_targets: ClassVar[bool] = False

    def make_graph(self) -> tuple[int, tuple[Edge, ...]]:
        """All pairs of branches."""
        return self.branches, all_pairs(self.branches)

    def combination(self, network: nn.Module) -> Combination:
        """The rescaling."""
        return Rescale(self.branch_names())

    def target_logits(self, k: int, outputs: Sequence[Outputs], context: Context) -> list:
        """The mean of the others."""
        return [jnp.mean(jnp.stack(super().target_logits(k, outputs, context)), axis=0)]
