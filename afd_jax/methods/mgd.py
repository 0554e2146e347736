"""MGD: Masked Generative Distillation.

Yang, Li, Shao, Shi, Yuan, Yuan; ECCV 2022; arXiv 2205.01529, as in the authors' code for
classification. Of a student's map h, brought to a teacher's channels by a 1x1 convolution where
they differ, each channel of each image is dropped with probability 0.15; two 3x3 convolutions G
give the teacher's map back:

  CE(y, softmax(z)) + 7e-5 * sum over elements of (G(masked h) - h_teacher)² [+ KD]

The authors teach by a frozen teacher; the same edge between networks that train is ours.
"""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.hints import AtStage
from afd_jax.methods.method import Terms, View
from afd_jax.networks.heads import Aligner, Generator


@dataclasses.dataclass(frozen=True)
class MGD(AtStage):
    """A student's masked map learns to generate its sources' maps; the mean over several.

    Attributes:
      hint_weight: of the sum of squares; 0 leaves it out.
      masked: share of the channels that are dropped.
    """

    teachers: ClassVar[tuple[int, int | None]] = (0, None)

    hint_weight: float = soft.weight(7e-5)
    masked: float = options.number(0.15, least=0, below=1)

    def hint_heads(self, own: View) -> Mapping[str, Any]:
        """For each source a generator, and what brings the network's map to its shape."""
        heads: dict[str, Any] = {}
        for source in own.sources:
            shape = self.theirs(source).shape[1:]
            heads[f"generate_from_{source.name}"] = Generator(shape[-1])
            if self.ours(own).shape[1:] != shape:
                heads[f"align_from_{source.name}"] = Aligner(shape)
        return heads

    def hint(self, own: View, source: View, batch: Batch) -> Terms:
        """The generated map's distance."""
        ours, theirs = self.ours(own), self.theirs(source)
        if align := own.heads.get(f"align_from_{source.name}"):
            ours = align(ours)
        kept = _kept(batch, f"{source.name} to {own.name}", ours.shape[-1], 1 - self.masked)
        generated = own.heads[f"generate_from_{source.name}"](ours * kept[:, None, None])
        apart = jnp.sum(jnp.square(generated - theirs), axis=(1, 2, 3))
        return self.weighed("generation", source, apart)


def _kept(batch: Batch, edge: str, channels: int, share: float) -> jax.Array:
    """1 for channels that stay, drawn for each image and edge: [batch, channels]."""
    key = jax.random.fold_in(batch.key, zlib.crc32(edge.encode()))
    drawn = jax.random.bernoulli(key, share, (len(batch.whole(batch.label)), channels))
    return drawn[batch.place].astype(jnp.float32)
