"""Every network alone: cross-entropy, whatever the graph says. The baseline of all others."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from afd_jax import losses
from afd_jax.methods.base import Context, Method, Terms
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class Independent(Method):
    """Each network learns from the labels alone."""

    own_graph: ClassVar[str] = "none"

    def logit_terms(self, k: int, outputs: Sequence[Outputs], context: Context) -> Terms:
        """Cross-entropy."""
        return {"cross_entropy": losses.cross_entropy(outputs[k].logits, context.label)}, {}
