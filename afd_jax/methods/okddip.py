"""OKDDip: Online Knowledge Distillation with Diverse Peers.

Chen, Mei, Wang, Feng, Chen; AAAI 2020; arXiv 1912.00350. Of the m branches on shared lower stages
the first m - 1 are peers and the last is the leader. With pooled features h_a and logits z_a:

  alpha_ab = softmax over b of <L h_a, E h_b>             L, E linear without bias, d to d / 8
  peer a     CE(y, z_a) + w(t) T² KL(softmax(sum of alpha_ab z_b / T) || softmax(z_a / T))
  leader     CE(y, z_m) + w(t) T² KL(softmax(mean of z_b / T) || softmax(z_m / T))

b runs over all peers, a itself too. As in the authors' code, the targets are not constants: the
divergences train L and E and, through their targets, the peers. w(t) as for ONE.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from afd_jax.graph import Edge, Graph
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.branches import BranchMethod
from afd_jax.methods.method import Terms, View
from afd_jax.networks.branched import Combination
from afd_jax.networks.layers import uniform_fan_in
from afd_jax.networks.outputs import Outputs


class PeerAttention(Combination):
    """Tells each peer how much to learn from every peer; the last branch, the leader, is left out.

    Attributes:
      reduction: how many times shorter queries and keys are than pooled features.
    """

    reduction: int = 8

    @nn.compact
    def __call__(
        self, shared: jax.Array, branches: Sequence[Outputs], *, train: bool
    ) -> tuple[Outputs, ...]:
        """As in `Combination`, with extras for a peer.

        "attention" [batch, peers], of sum 1; "target" [batch, classes], all peers' logits in this
        mix.
        """
        *peers, leader = branches
        pooled = jnp.stack([jnp.mean(peer.features, axis=(1, 2)) for peer in peers], axis=1)
        channels = pooled.shape[-1]
        size, init = max(1, channels // self.reduction), uniform_fan_in(channels)
        query, key = (
            nn.Dense(size, use_bias=False, kernel_init=init, name=name)(pooled)
            for name in ("query", "key")
        )
        attention = nn.softmax(jnp.einsum("bqd,bkd->bqk", query, key))
        logits = jnp.stack([peer.logits for peer in peers], axis=1)

        def mixed(a: int) -> dict[str, jax.Array]:
            weights = attention[:, a]
            target = jnp.sum(weights[:, :, None] * logits, axis=1)
            return {"attention": weights, "target": target}

        mixes = (dataclasses.replace(peer, extras=mixed(a)) for a, peer in enumerate(peers))
        return (*mixes, leader)


@dataclasses.dataclass(frozen=True)
class OKDDip(BranchMethod):
    """Peers learn from mixes of each other's logits, and a leader from their mean."""

    gradient_to_branches: ClassVar[bool] = True

    branches: int = options.number(4, least=2, most=64, whole=True)

    def among(
        self, graph: Graph, branches: Sequence[str], ensembles: Sequence[str]
    ) -> tuple[Edge, ...]:
        """Every peer teaches every other, and the leader, the last branch."""
        return tuple((b, a) for a in branches for b in branches[:-1] if a != b)

    def combination(self, classes: int) -> Combination:
        """The attention."""
        return PeerAttention((*self.names()[:-1], "leader"))

    def losses(self, own: View, sources: Sequence[View], batch: Batch) -> Terms:
        """Cross-entropy; a peer's divergence from its mix, the leader's from the plain mean."""
        target = own.extras.get("target")
        if target is None:
            target = jnp.mean(jnp.stack([peer.logits for peer in sources], axis=1), axis=1)
        return Terms(logit=soft.labels(own.logits, batch)) + soft.rising(
            self, own, target, batch, constant=False
        )
