"""The paraphraser of factor transfer, which is trained on a frozen teacher before its student is.

Kim, Park, Kwak; NeurIPS 2018. Of the teacher's last map x, an encoder makes a factor of fewer
channels, and a decoder the map again: the loss is the mean of |decoder(encoder(x)) - x|. Three
convolutions each (the decoder's are transposed in the paper, which at stride 1 is the same class of
functions), by the same optimizer as the student's.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
from flax import linen as nn

from afd_jax import losses
from afd_jax.errors import SettingError, require_number
from afd_jax.graph import Graph
from afd_jax.networks.heads import NonLinearTransformation
from afd_jax.methods.method import Context, Heads, Method, Terms
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class Paraphraser(Method):
    """Trains encoder and decoder on top of frozen teachers; there is no network that learns.

    Attributes:
      rate: channels of the factor, as a share of the teacher's.

    Raises:
      SettingError: if a number is out of range.
    """

    rate: float = 0.5

    own_graph: ClassVar[str] = "none"
    teacher_count: ClassVar[tuple[int, int | None]] = (1, None)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("method.rate", self.rate, above=0, most=1)

    @classmethod
    def from_settings(
        cls, shape: Any, networks: Sequence[str], options: Mapping[str, Any], teachers: int = 0
    ) -> "Method":
        """As in `Method`, without networks."""
        if networks:
            remedy = "a paraphraser is trained on teachers alone; leave networks empty: ()"
            raise SettingError("networks", tuple(networks), remedy)
        return cls(graph=Graph(teachers, ()), teachers=teachers, **options)

    def learns(self, k: int) -> bool:
        """Every teacher's layers do."""
        return True

    def projections(self, k: int, shapes: Sequence[Outputs]) -> dict[str, nn.Module]:
        """Encoder and decoder."""
        half = encoder(shapes[k], self.rate)
        channels, factor = shapes[k].features.shape[-1], half.widths[-1]
        return {
            "encoder": half,
            "decoder": NonLinearTransformation((factor, channels, channels)),
        }

    def project(self, k: int, outputs: Outputs, heads: Heads) -> dict[str, jax.Array]:
        """The factor, and the map made of it."""
        factor = heads["encoder"](outputs.features)
        return {"encoder": factor, "decoder": heads["decoder"](factor)}

    def logit_terms(self, k: int, outputs: Sequence[Outputs], context: Context) -> Terms:
        """How far the map is from the one given back."""
        given_back = outputs[k].extras["decoder"]
        return {"reconstruction": losses.l1_alignment(given_back, outputs[k].features)}, {}


def encoder(outputs: Outputs, rate: float) -> NonLinearTransformation:
    """The half that makes a factor; `outputs` of the teacher, as shapes."""
    channels = outputs.features.shape[-1]
    factor = max(1, round(rate * channels))
    return NonLinearTransformation((channels, factor, factor))
