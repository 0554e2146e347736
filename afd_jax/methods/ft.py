"""FT: Paraphrasing Complex Network, network compression via factor transfer.

Kim, Park, Kwak; NeurIPS 2018; arXiv 1802.04977, as in the authors' code. A paraphraser, trained
before on the teacher's last map x to give it back (see `paraphraser`), makes a factor of it, with
half as many channels; a translator makes one of the student's map:

  CE(y, softmax(z)) + 500 * mean of |F_student / |F_student| - F_teacher / |F_teacher|| [+ KD]
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax
import optax

from afd_jax import losses
from afd_jax.methods import options, paraphraser, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.hints import Hinted
from afd_jax.methods.method import Terms, View
from afd_jax.networks.heads import NonLinearTransformation
from afd_jax.networks.imported import build

MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4  # of the paraphraser's optimizer, as in the authors' code


@dataclasses.dataclass(frozen=True)
class FT(Hinted):
    """A student's translated map learns its teachers' factors; the mean over several.

    Attributes:
      hint_weight: of the distance, a mean over the factor's elements; 0 leaves it out.
      rate: channels of the factor, as a share of the teacher's.
      translator: "convolutional" or one's own, made with `widths` and `size`.
      paraphraser_epochs: how long the paraphraser is trained before (6 in the authors' code).
      paraphraser_learning_rate: constant (0.1 in the authors' code).
    """

    peers: ClassVar[bool] = False

    hint_weight: float = soft.weight(500.0)
    rate: float = options.number(0.5, above=0, most=1)
    translator: Any = options.head("convolutional")
    paraphraser_epochs: float = options.number(6.0, above=0)
    paraphraser_learning_rate: float = options.number(0.1, above=0)

    def hint_heads(self, own: View) -> Mapping[str, Any]:
        """For a student a translator to each source's factor; for a teacher its encoder."""
        if own.role == "teacher":
            return {"encoder": paraphraser.encoder(own.features, self.rate)}
        channels = own.features.shape[-1]
        translators = {}
        for source in own.sources:
            factor = paraphraser.factor_channels(source.features, self.rate)
            size = source.features.shape[1:3]
            widths = (channels, factor, factor)
            translators[f"from_{source.name}"] = (
                NonLinearTransformation(widths, size)
                if self.translator == "convolutional"
                else build("method.translator", self.translator, widths=widths, size=size)
            )
        return translators

    @property
    def preparation_epochs(self) -> float:
        """Of the paraphraser."""
        return self.paraphraser_epochs if self.hint_weight else 0.0

    def prepare(
        self, teacher: View, heads: Mapping[str, Any], maps: Iterator[jax.Array], rng: jax.Array
    ) -> dict[str, Any]:
        """Trains the paraphraser on the teacher's maps; what the encoder has learned."""
        optimizer = optax.chain(
            optax.add_decayed_weights(WEIGHT_DECAY),
            optax.sgd(self.paraphraser_learning_rate, MOMENTUM),
        )
        channels = teacher.features.shape[-1]
        learned = paraphraser.train(heads["encoder"], channels, self.rate, maps, optimizer, rng)
        return {"encoder": learned}

    def hint(self, own: View, source: View, batch: Batch) -> Terms:
        """The distance of the factors."""
        factor = source.heads["encoder"](source.features)
        translated = own.heads[f"from_{source.name}"](own.features)
        apart = losses.normalized_l1_alignment(translated, factor) / factor[0].size
        return self.weighed("factor", source, apart)
