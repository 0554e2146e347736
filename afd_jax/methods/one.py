"""ONE: Knowledge Distillation by On-the-Fly Native Ensemble.

Lan, Zhu, Gong; NeurIPS 2018; arXiv 1806.04606. Branches i = 1..m with logits z_i on shared lower
stages, whose last map s goes through a gate:

  g = softmax(ReLU(BatchNorm(W mean(s) + b)))      one weight for each branch
  z_e = sum of g_i z_i                             the ensemble, the teacher
  CE(y, z_e) + sum of CE(y, z_i) + w(t) T² KL(softmax(z_e / T) || softmax(z_i / T))

The ensemble is a constant in the divergence; its own cross-entropy trains the gate and, through
z_i, the branches. w(t) rises as `losses.ramp_up_weight` over 80 of 300 epochs, here step by step
rather than once an epoch.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from afd_jax.graph import Edge, Graph
from afd_jax.methods import soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.branches import BranchMethod
from afd_jax.methods.method import Terms, View
from afd_jax.networks.branched import Combination
from afd_jax.networks.layers import batch_norm, relu, uniform_fan_in
from afd_jax.networks.outputs import Outputs


class Gate(Combination):
    """Adds the ensemble of the branches, weighted for each image by what the shared map holds."""

    @nn.compact
    def __call__(
        self, shared: jax.Array, branches: Sequence[Outputs], *, train: bool
    ) -> tuple[Outputs, ...]:
        """As in `Combination`; the ensemble's extras hold "gate" [batch, branches], of sum 1.

        With a view for each branch the gate sees the mean over their maps.
        """
        pooled = jnp.mean(shared, axis=tuple(range(1, shared.ndim - 1)))
        init = uniform_fan_in(pooled.shape[-1])
        scores = nn.Dense(len(branches), kernel_init=init, bias_init=init, name="linear")(pooled)
        scores = relu(batch_norm(train, self.axis_name)(name="norm")(scores))
        gate = nn.softmax(scores)
        logits = jnp.stack([branch.logits for branch in branches], axis=1)
        mixed = jnp.sum(gate[:, :, None] * logits, axis=1)
        maps = jnp.concatenate([branch.features for branch in branches], axis=-1)
        return (*branches, Outputs(mixed, maps, extras={"gate": gate}))


@dataclasses.dataclass(frozen=True)
class ONE(BranchMethod):
    """Branches learn from the labels and from their own gated ensemble."""

    def among(
        self, graph: Graph, branches: Sequence[str], ensembles: Sequence[str]
    ) -> tuple[Edge, ...]:
        """The ensemble teaches every branch."""
        return tuple((ensemble, branch) for ensemble in ensembles for branch in branches)

    def combination(self, classes: int) -> Combination:
        """The gate."""
        return Gate((*self.names(), "gated ensemble"))

    def node(self, own: View, batch: Batch) -> Terms:
        """Cross-entropy; of the ensemble, as metrics, the gate's weights."""
        gate = own.extras.get("gate")
        metrics = {} if gate is None else {f"gate_{i}": gate[:, i] for i in range(self.branches)}
        return Terms(logit=soft.labels(own.logits, batch), metrics=metrics)

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The ensemble's softened predictions."""
        return soft.rising(self, own, source.logits, batch)
