"""Pre-activation ResNets for small images (He et al., "Identity Mappings", 2016).

In the form of the self-distillation papers, which is not He's: a 3x3 stem with BatchNorm and ReLU,
four stages of 64 to 512 channels, each shortcut from the activated input, and neither BatchNorm nor
ReLU before the final pooling. Initial parameters are PyTorch's own, uniform in ±1/sqrt(inputs), as
in the code of CS-KD and PS-KD.
"""

import functools

import jax
from flax import linen as nn

from afd_jax.errors import SettingError
from afd_jax.networks.layers import ConvNorm, norm_relu, uniform_kernel
from afd_jax.networks.layers import conv as plain_conv
from afd_jax.networks.staged import StagedNetwork

conv = functools.partial(plain_conv, kernel_init=uniform_kernel)

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class PreActBlock(nn.Module):
    """Pre-activated convolutions and a shortcut, which is taken after the first activation.

    Attributes:
      width: of the inner convolutions.
      stride: of the 3x3 convolution (the first one of two) and of the shortcut.
      bottleneck: 1x1, 3x3 and 1x1 to four times the width, instead of two 3x3.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    width: int
    stride: int = 1
    bottleneck: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [batch, h, w, c] to [batch, h/stride, w/stride, width or 4 * width]."""
        out = self.width * (4 if self.bottleneck else 1)
        y = norm_relu(x, train, self.axis_name, "norm1")
        same = self.stride == 1 and x.shape[-1] == out
        x = y if same else conv(out, 1, self.stride, name="shortcut")(y)
        if self.bottleneck:
            y = conv(self.width, 1, name="conv1")(y)
            y = norm_relu(y, train, self.axis_name, "norm2")
            y = conv(self.width, 3, self.stride, name="conv2")(y)
            y = norm_relu(y, train, self.axis_name, "norm3")
            return x + conv(out, 1, name="conv3")(y)
        y = conv(self.width, 3, self.stride, name="conv1")(y)
        y = norm_relu(y, train, self.axis_name, "norm2")
        return x + conv(self.width, 3, name="conv2")(y)


class PreActResNet(StagedNetwork):
    """The last map is [4, 4, 512] (2048 for depth 50) for 32x32 images.

    Attributes:
      depth: 18, 34 or 50.
    """

    depth: int = 18

    @property
    def stage_count(self) -> int:
        """Four."""
        return 4

    @property
    def least_pixels(self) -> int:
        """Three stages halve the image."""
        return 8

    def check(self) -> None:
        """The depth must be known."""
        if self.depth not in BLOCKS:
            raise SettingError("depth", self.depth, f"must be one of {sorted(BLOCKS)}")

    def stem(self, x: jax.Array, train: bool) -> jax.Array:
        """3x3 convolution, BatchNorm, ReLU."""
        return ConvNorm(64, axis_name=self.axis_name, kernel_init=uniform_kernel, name="stem")(
            x, train=train
        )

    def stage(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """Blocks; the later stages halve the map."""
        for block in range(BLOCKS[self.depth][index]):
            stride = 2 if index > 0 and block == 0 else 1
            name = f"stage{index + 1}_block{block + 1}"
            x = PreActBlock(64 * 2**index, stride, self.depth == 50, self.axis_name, name=name)(
                x, train=train
            )
        return x
