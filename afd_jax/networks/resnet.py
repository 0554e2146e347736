"""CIFAR ResNets of depth 6n+2 (He et al., 2016), in the form the papers' own lab uses.

Basic blocks at every depth, or bottlenecks, as OKDDip and PCL have them; where a block changes the
shape, its shortcut is a 1x1 convolution with BatchNorm; the last feature map is [8, 8, 64] for
32x32 images (256 channels with bottlenecks).
"""

from collections.abc import Sequence

import jax
from flax import linen as nn

from afd_jax.errors import SettingError, require_number
from afd_jax.networks.chain import chain
from afd_jax.networks.layers import batch_norm, conv, norm_relu, relu
from afd_jax.networks.resnext import ResNeXtBlock
from afd_jax.networks.staged import StagedNetwork


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, [batch, h, w, c] to [batch, h/stride, w/stride, width].

    ReLU follows outside, where a stage can be cut.

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
        """Applies the block; `train` selects the batch's own statistics."""
        norm = batch_norm(train, self.axis_name)
        y = conv(self.width, 3, self.stride, name="conv1")(x)
        y = relu(norm(name="norm1")(y))
        y = norm(name="norm2")(conv(self.width, 3, name="conv2")(y))
        if x.shape != y.shape:
            x = conv(self.width, 1, self.stride, name="shortcut")(x)
            x = norm(name="shortcut_norm")(x)
        return x + y


class CifarResNet(StagedNetwork):
    """ResNet for small images.

    Attributes:
      depth: 6n+2: 8, 14, 20, 32, 44, 56, 110, ...; 9n+2 with bottlenecks.
      widths: channels of the three stages.
      stem_width: channels of the first convolution.
      bottleneck: None, or how many times as wide as its stage a bottleneck's 3x3 convolution is;
        what it returns is four times as wide.
    """

    depth: int = 32
    widths: Sequence[int] = (16, 32, 64)
    stem_width: int = 16
    bottleneck: int | None = None

    def check(self) -> None:
        """The depth must fit the number of layers in a block."""
        if self.bottleneck is not None:
            require_number("bottleneck", self.bottleneck, least=1, whole=True)
        if self.bottleneck and (self.depth < 11 or (self.depth - 2) % 9):
            remedy = "a CIFAR ResNet of bottlenecks has depth 9n+2: 11, 20, 110"
            raise SettingError("depth", self.depth, remedy)
        if not self.bottleneck and (self.depth < 8 or (self.depth - 2) % 6):
            raise SettingError("depth", self.depth, "a CIFAR ResNet has depth 6n+2: 8, 14, 20, 32")

    def stem(self, x: jax.Array, train: bool) -> jax.Array:
        """3x3 convolution, BatchNorm, ReLU."""
        return norm_relu(
            conv(self.stem_width, 3, name="stem")(x), train, self.axis_name, "stem_norm"
        )

    def stage(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """N blocks; the later stages halve the map."""
        blocks = []
        for block in range((self.depth - 2) // (9 if self.bottleneck else 6)):
            stride = 2 if index > 0 and block == 0 else 1
            name = f"stage{index + 1}_block{block + 1}"
            blocks.append(self._block(self.widths[index], stride, name))
        return chain(blocks, x, train=train, between=relu)

    def activate(self, x: jax.Array) -> jax.Array:
        """ReLU."""
        return relu(x)

    def _block(self, width: int, stride: int, name: str) -> nn.Module:
        if not self.bottleneck:
            return BasicBlock(width, stride, self.axis_name, name=name)
        # A bottleneck is the block of a ResNeXt with a single group.
        inner = width * self.bottleneck
        return ResNeXtBlock(inner, 4 * width, 1, stride, self.axis_name, name=name)
