"""Every network alone: cross-entropy, whatever the graph says. The baseline of all others."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from afd_jax import losses
from afd_jax.errors import require_number
from afd_jax.methods.method import Context, Method, Terms
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class Independent(Method):
    """Each network learns from the labels alone.

    Attributes:
      label_smoothing: probability spread evenly over all classes (Szegedy et al., 2016); 0 for
        none.

    Raises:
      SettingError: if a number is out of range.
    """

    label_smoothing: float = 0.0

    own_graph: ClassVar[str] = "none"
    teacher_count: ClassVar[tuple[int, int | None]] = (0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("method.label_smoothing", self.label_smoothing, least=0, below=1)

    @classmethod
    def from_settings(
        cls, shape: Any, networks: Sequence[str], options: Mapping[str, Any], teachers: int = 0
    ) -> "Method":
        """As in `Method`, for one network or more; whatever the shape, nobody teaches."""
        return super().from_settings("none", networks, options, teachers)

    def logit_terms(self, k: int, outputs: Sequence[Outputs], context: Context) -> Terms:
        """Cross-entropy."""
        entropy = losses.cross_entropy(
            outputs[k].logits, context.label, label_smoothing=self.label_smoothing
        )
        return {"cross_entropy": entropy}, {}
