"""AT: Attention Transfer.

Zagoruyko, Komodakis; ICLR 2017; arXiv 1612.03928; activation-based, as in the authors' code. With
the attention A of a map, the mean over channels of its squares, divided by its length:

  CE(y, softmax(z)) + 1000 * sum over stages of mean of (A(h_student) - A(h_teacher))² [+ KD]
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from afd_jax import losses
from afd_jax.errors import SettingError
from afd_jax.networks.heads import resized
from afd_jax.methods.hints import HintMethod, stages_of
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class AT(HintMethod):
    """A student learns where its teachers look, at the end of every stage; the mean over several.

    Attributes:
      hint_weight: of the sum over stages.

    Raises:
      SettingError: if a number is out of range, or networks have different numbers of stages.
    """

    hint_weight: float = 1000.0

    hint: ClassVar[str] = "attention"

    def projections(self, k: int, shapes: Sequence[Outputs]) -> dict[str, nn.Module]:
        """None; but here the stages are checked."""
        if self.is_taught(k):
            own = len(stages_of(k, shapes[k]))
            for j in self.graph.sources(k):
                others = len(stages_of(j, shapes[j]))
                if others != own:
                    remedy = f"attention is compared stage by stage, but node {k} has {own} stages "
                    remedy += f"and node {j} has {others}; take networks with as many"
                    raise SettingError("networks", (k, j), remedy)
        return {}

    def distances(self, k: int, outputs: Sequence[Outputs]) -> list[jax.Array]:
        """Sums over stages; maps of different sizes meet at the smaller one (assumed)."""
        own = outputs[k].stages
        return [_sum_of_distances(own, outputs[j].stages) for j in self.graph.sources(k)]


def _sum_of_distances(own: Sequence[jax.Array], others: Sequence[jax.Array]) -> jax.Array:
    each = [_distance(a, b) for a, b in zip(own, others, strict=True)]
    return jnp.sum(jnp.stack(each), axis=0)


def _distance(own: jax.Array, other: jax.Array) -> jax.Array:
    size = [min(sides) for sides in zip(own.shape[1:3], other.shape[1:3], strict=True)]
    return losses.attention_alignment(resized(own, size), resized(other, size))
