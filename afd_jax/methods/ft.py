"""FT: Paraphrasing Complex Network, network compression via factor transfer.

Kim, Park, Kwak; NeurIPS 2018; arXiv 1802.04977, as in the authors' code. A paraphraser, trained
before on the teacher's last map x to give it back (see `paraphraser`), makes a factor of it, with
half as many channels; a translator makes one of the student's map:

  CE(y, softmax(z)) + 500 * mean of |F_student / |F_student| - F_teacher / |F_teacher|| [+ KD]
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
from flax import linen as nn

from afd_jax import losses
from afd_jax.errors import require_number
from afd_jax.networks.heads import NonLinearTransformation
from afd_jax.methods.hints import HintMethod
from afd_jax.methods.paraphraser import encoder
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class FT(HintMethod):
    """A student's translated map learns its teachers' factors; the mean over several.

    Attributes:
      hint_weight: of the distance, a mean over the factor's elements.
      rate: channels of the factor, as a share of the teacher's.
      paraphraser_share: how long the paraphraser is trained before, as a share of the run (6 of
        164 epochs in the authors' code).

    Raises:
      SettingError: if a number is out of range.
    """

    hint_weight: float = 500.0
    rate: float = 0.5
    paraphraser_share: float = 0.04

    hint: ClassVar[str] = "factor"
    takes_peers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("method.rate", self.rate, above=0, most=1)
        require_number("method.paraphraser_share", self.paraphraser_share, above=0, most=1)

    @classmethod
    def preparation(cls, options: Mapping[str, Any]) -> tuple[dict[str, Any], float] | None:
        """The paraphraser's settings and its share of the duration."""
        if not options["hint_weight"]:
            return None
        method = {"name": "paraphraser", "rate": options["rate"]}
        return method, options["paraphraser_share"]

    def projections(self, k: int, shapes: Sequence[Outputs]) -> dict[str, nn.Module]:
        """For a student a translator to each source's factor; for a teacher its encoder."""
        if not self.learns(k):
            if not self.hint_weight:
                return {}
            return {"encoder": encoder(shapes[k], self.rate)}
        if not self.is_taught(k):
            return {}
        channels = shapes[k].features.shape[-1]
        translators: dict[str, nn.Module] = {}
        for j in self.graph.sources(k):
            factor = encoder(shapes[j], self.rate).widths[-1]
            translators[f"from_{j}"] = NonLinearTransformation(
                (channels, factor, factor), shapes[j].features.shape[1:3]
            )
        return translators

    def distances(self, k: int, outputs: Sequence[Outputs]) -> list[jax.Array]:
        """Mean absolute differences of factors of length 1."""
        pairs = [
            (outputs[k].extras[f"from_{j}"], outputs[j].extras["encoder"])
            for j in self.graph.sources(k)
        ]
        return [losses.normalized_l1_alignment(own, f) / f[0].size for own, f in pairs]
