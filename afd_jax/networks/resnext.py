"""ResNeXt-29 for small images (Xie et al., "Aggregated Residual Transformations", 2017).

The linear layer's bias begins at zero, as in the authors' code.
"""

import jax
from flax import linen as nn

from afd_jax.networks.chain import chain
from afd_jax.networks.layers import Classifier, ConvNorm, relu
from afd_jax.networks.staged import StagedNetwork


class ResNeXtBlock(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions and a shortcut; ReLU follows outside.

    Attributes:
      inner: channels of the grouped convolution.
      out: output channels.
      groups: cardinality.
      stride: of the grouped convolution and of the shortcut.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    inner: int
    out: int
    groups: int
    stride: int = 1
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [batch, h, w, c] to [batch, h/stride, w/stride, out]."""
        axis = self.axis_name
        y = ConvNorm(self.inner, 1, axis_name=axis, name="conv1")(x, train=train)
        y = ConvNorm(self.inner, 3, self.stride, groups=self.groups, axis_name=axis, name="conv2")(
            y, train=train
        )
        y = ConvNorm(self.out, 1, relu=False, axis_name=axis, name="conv3")(y, train=train)
        if x.shape != y.shape:
            x = ConvNorm(self.out, 1, self.stride, relu=False, axis_name=axis, name="shortcut")(
                x, train=train
            )
        return x + y


class ResNeXt(StagedNetwork):
    """Three stages of three blocks, 256, 512 and 1024 channels; the last map is [8, 8, 1024].

    Attributes:
      groups: cardinality C.
      width: d, channels of one group in the first stage; doubled from stage to stage.
    """

    groups: int = 8
    width: int = 64

    def stem(self, x: jax.Array, train: bool) -> jax.Array:
        """3x3 convolution, BatchNorm, ReLU."""
        return ConvNorm(64, axis_name=self.axis_name, name="stem")(x, train=train)

    def stage(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """Three blocks; the later stages halve the map."""
        blocks = [
            ResNeXtBlock(
                self.groups * self.width * 2**index,
                256 * 2**index,
                self.groups,
                2 if index > 0 and block == 0 else 1,
                self.axis_name,
                name=f"stage{index + 1}_block{block + 1}",
            )
            for block in range(3)
        ]
        return chain(blocks, x, train=train, between=relu)

    def activate(self, x: jax.Array) -> jax.Array:
        """ReLU."""
        return relu(x)

    def classifier(self) -> nn.Module:
        """One linear layer, its bias zero at first."""
        return Classifier(self.classes, zero_bias=True, name="classifier")
