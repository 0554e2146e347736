"""DML: Deep Mutual Learning.

Zhang, Xiang, Hospedales, Lu; CVPR 2018; arXiv 1706.00384. For network k among K:

  CE(y, softmax(z_k)) + 1/(K-1) sum over j != k of KL(softmax(z_j) || softmax(z_k))

on the graph of all pairs. All networks are updated at once, from one forward pass (assumed; the
paper's algorithm takes them in turn). AFD's authors compare with a softened form, T = 3 and T²
(assumed).
"""

import dataclasses
from collections.abc import Mapping, Sequence

from afd_jax.errors import require_flag, require_number
from afd_jax.methods.base import Method, Terms
from afd_jax.methods.logits import distil
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class DML(Method):
    """Each network learns from the labels and from the mean of what its sources predict.

    Attributes:
      temperature: T; 1 as published, 3 in the form that AFD is compared with.
      scale_by_t_squared: multiply the divergence by T²; without effect at T = 1.
      distillation_weight: of the divergence; 1 as published.

    Raises:
      SettingError: if a number is out of range.
    """

    temperature: float = 1.0
    scale_by_t_squared: bool = True
    distillation_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("method.temperature", self.temperature, above=0)
        require_flag("method.scale_by_t_squared", self.scale_by_t_squared)
        require_number("method.distillation_weight", self.distillation_weight, least=0)

    def logit_terms(self, k: int, outputs: Sequence[Outputs], batch: Mapping) -> Terms:
        """Cross-entropy, and the mean divergence from the sources."""
        return distil(
            self.graph,
            k,
            outputs,
            batch,
            temperature=self.temperature,
            weight=self.distillation_weight,
            scale_by_t_squared=self.scale_by_t_squared,
        ), {}
