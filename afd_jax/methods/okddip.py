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

from afd_jax.graph import Edge
from afd_jax.methods.method import Context
from afd_jax.methods.branches import BranchMethod
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
        """As in `Combination`; a peer's extras hold "attention" [batch, peers], of sum 1."""
        *peers, leader = branches
        pooled = jnp.stack([jnp.mean(peer.features, axis=(1, 2)) for peer in peers], axis=1)
        channels = pooled.shape[-1]
        size, init = max(1, channels // self.reduction), uniform_fan_in(channels)
        query, key = (
            nn.Dense(size, use_bias=False, kernel_init=init, name=name)(pooled)
            for name in ("query", "key")
        )
        attention = nn.softmax(jnp.einsum("bqd,bkd->bqk", query, key))
        return (
            *(
                dataclasses.replace(peer, extras={"attention": attention[:, a]})
                for a, peer in enumerate(peers)
            ),
            leader,
        )


@dataclasses.dataclass(frozen=True)
class OKDDip(BranchMethod):
    """Peers learn from mixes of each other's logits, and a leader from their mean."""

    branches: int = 4

    constant_targets: ClassVar[bool] = False

    def make_graph(self) -> tuple[int, tuple[Edge, ...]]:
        """Every peer teaches every other, and the leader, the last branch."""
        peers = range(self.branches - 1)
        return self.branches, tuple((b, a) for a in range(self.branches) for b in peers if a != b)

    def combination(self, network: nn.Module) -> Combination:
        """The attention."""
        return PeerAttention((*self.branch_names()[:-1], "leader"))

    def target_logits(self, k: int, outputs: Sequence[Outputs], context: Context) -> list:
        """A peer's mix by its attention, the leader's plain mean."""
        logits = jnp.stack([peer.logits for peer in outputs[: self.branches - 1]], axis=1)
        attention = outputs[k].extras.get("attention")
        if attention is None:
            return [jnp.mean(logits, axis=1)]
        return [jnp.sum(attention[:, :, None] * logits, axis=1)]
