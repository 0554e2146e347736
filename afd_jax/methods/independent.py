"""Every network alone: cross-entropy, whatever the graph says. The baseline of all others."""

import dataclasses
from typing import Any, ClassVar

from afd_jax import losses
from afd_jax.graph import Edge, Graph
from afd_jax.methods import options
from afd_jax.methods.batch import Batch
from afd_jax.methods.method import Method, Terms, View


@dataclasses.dataclass(frozen=True)
class Independent(Method):
    """Each network learns from the labels alone.

    Attributes:
      label_smoothing: probability spread evenly over all classes (Szegedy et al., 2016); 0 for
        none. The setting of the run of that name does the same in every method.
    """

    teachers: ClassVar[tuple[int, int | None]] = (0, 0)

    label_smoothing: float = options.number(0.0, least=0, below=1)

    def edges(self, graph: Graph, shape: Any) -> tuple[Edge, ...]:
        """None, whatever the shape."""
        return ()

    def node(self, own: View, batch: Batch) -> Terms:
        """Cross-entropy."""
        entropy = losses.cross_entropy(
            own.logits, batch.targets, label_smoothing=self.label_smoothing
        )
        return Terms(logit={"cross_entropy": entropy})
