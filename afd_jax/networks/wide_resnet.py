"""Wide ResNets WRN-d-k for small images (Zagoruyko, Komodakis, "Wide Residual Networks", 2016).

The linear layer's bias begins at zero, as in RepDistiller.
"""

import jax
from flax import linen as nn

from afd_jax.errors import SettingError
from afd_jax.networks.chain import chain
from afd_jax.networks.layers import Classifier, conv, norm_relu
from afd_jax.networks.staged import StagedNetwork


class WideBlock(nn.Module):
    """Two pre-activated 3x3 convolutions, [batch, h, w, c] to [batch, h/stride, w/stride, width].

    Where width or size changes, the shortcut is a 1x1 convolution of the activated input.

    Attributes:
      width: output channels.
      stride: of the first convolution and of the shortcut.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    width: int
    stride: int = 1
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the block."""
        y = norm_relu(x, train, self.axis_name, "norm1")
        if x.shape[-1] != self.width or self.stride != 1:
            x = conv(self.width, 1, self.stride, name="shortcut")(y)
        y = conv(self.width, 3, self.stride, name="conv1")(y)
        y = norm_relu(y, train, self.axis_name, "norm2")
        return x + conv(self.width, 3, name="conv2")(y)


class WideResNet(StagedNetwork):
    """Three stages of 16k, 32k and 64k channels; the last map is [8, 8, 64k] for 32x32 images.

    Attributes:
      depth: 6n+4: 16, 22, 28, 40, ...
      factor: k, how many times wider than a CIFAR ResNet.
    """

    depth: int = 28
    factor: int = 10

    def check(self) -> None:
        """The depth must be 6n+4."""
        if self.depth < 10 or (self.depth - 4) % 6:
            raise SettingError("depth", self.depth, "a wide ResNet has depth 6n+4: 16, 22, 28, 40")

    def stem(self, x: jax.Array, train: bool) -> jax.Array:
        """One convolution; its BatchNorm is the first block's."""
        return conv(16, 3, name="stem")(x)

    def stage(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """N blocks; the later stages halve the map."""
        width = 16 * 2**index * self.factor
        blocks = []
        for block in range((self.depth - 4) // 6):
            stride = 2 if index > 0 and block == 0 else 1
            name = f"stage{index + 1}_block{block + 1}"
            blocks.append(WideBlock(width, stride, self.axis_name, name=name))
        return chain(blocks, x, train=train)

    def finish(self, x: jax.Array, train: bool) -> jax.Array:
        """BatchNorm and ReLU, as blocks begin with them."""
        return norm_relu(x, train, self.axis_name, "norm")

    def classifier(self) -> nn.Module:
        """One linear layer, its bias zero at first."""
        return Classifier(self.classes, zero_bias=True, name="classifier")
