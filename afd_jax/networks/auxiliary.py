"""A classifier of its own on a map in the middle of a network."""

from collections.abc import Sequence

import jax
from flax import linen as nn

from afd_jax.networks.chain import chain
from afd_jax.networks.layers import Classifier, norm_relu
from afd_jax.networks.wide_resnet import WideBlock


class AuxiliaryClassifier(nn.Module):
    """Stages of pre-activated blocks, BatchNorm, ReLU and a classifier, as in a wide ResNet.

    Attributes:
      classes: number of classes.
      widths: channels of each stage.
      blocks: of each stage.
      strides: of the first block of each.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    classes: int
    widths: Sequence[int]
    blocks: Sequence[int]
    strides: Sequence[int]
    axis_name: str | None = None

    @nn.compact
    def __call__(self, maps: jax.Array, *, train: bool = True) -> jax.Array:
        """Maps [batch, height, width, channels] to logits [batch, classes]."""
        x = maps
        for s, (width, count, stride) in enumerate(
            zip(self.widths, self.blocks, self.strides, strict=True), 1
        ):
            blocks = [
                WideBlock(width, stride if b == 1 else 1, self.axis_name, name=f"stage{s}_block{b}")
                for b in range(1, count + 1)
            ]
            x = chain(blocks, x, train=train)
        x = norm_relu(x, train, self.axis_name, "norm")
        return Classifier(self.classes, name="classifier")(x)
