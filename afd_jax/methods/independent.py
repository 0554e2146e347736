"""Every network alone: cross-entropy, whatever the graph says. The baseline of all others."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from afd_jax import losses
from afd_jax.methods.base import Context, Method, Terms
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class Independent(Method):
    """Each network learns from the labels alone."""

    own_graph: ClassVar[str] = "none"

    @classmethod
    def from_settings(
        cls, shape: Any, networks: Sequence[str], options: Mapping[str, Any]
    ) -> "Method":
        """As in `Method`, for one network or more; whatever the shape, nobody teaches."""
        return super().from_settings("none", networks, options)

    def logit_terms(self, k: int, outputs: Sequence[Outputs], context: Context) -> Terms:
        """Cross-entropy."""
        return {"cross_entropy": losses.cross_entropy(outputs[k].logits, context.label)}, {}
