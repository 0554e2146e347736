"""Every network alone: cross-entropy, whatever the graph says. The baseline of all others."""

import dataclasses
from collections.abc import Mapping, Sequence

from afd_jax import losses
from afd_jax.methods.base import Method, Terms
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class Independent(Method):
    """Each network learns from the labels alone."""

    def logit_terms(self, k: int, outputs: Sequence[Outputs], batch: Mapping) -> Terms:
        """Cross-entropy."""
        return {"cross_entropy": losses.cross_entropy(outputs[k].logits, batch["label"])}, {}
