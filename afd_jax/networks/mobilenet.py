"""MobileNetV2 for small images (Sandler et al., 2018), of half width as distillation papers use it.

The stem halves the image, and so do three of the stages: 32x32 images give a last map of 2x2.
Initial parameters as in RepDistiller: kernels normal of deviation sqrt(2 / (kernel² * outputs)),
the linear layer's matrix normal of deviation 0.01, its bias zero.
"""

import jax
from flax import linen as nn

from afd_jax.errors import require_number
from afd_jax.networks.layers import Classifier, ConvNorm, narrow
from afd_jax.networks.staged import StagedNetwork

# Expansion, channels at full width, blocks, stride of the first block.
ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STAGES = ((0, 1), (2,), (3, 4), (5, 6))  # rows between two halvings


class InvertedResidual(nn.Module):
    """1x1 to more channels, depthwise 3x3, and 1x1 back without ReLU.

    Attributes:
      out: output channels.
      expansion: factor of the inner channels.
      stride: of the depthwise convolution.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    out: int
    expansion: int
    stride: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [batch, h, w, c] to [batch, h/stride, w/stride, out]."""
        axis, inner = self.axis_name, x.shape[-1] * self.expansion
        y = ConvNorm(inner, 1, axis_name=axis, name="expand")(x, train=train)
        y = ConvNorm(inner, 3, self.stride, groups=inner, axis_name=axis, name="depthwise")(
            y, train=train
        )
        y = ConvNorm(self.out, 1, relu=False, axis_name=axis, name="project")(y, train=train)
        return x + y if x.shape == y.shape else y


class MobileNetV2(StagedNetwork):
    """The last map is [2, 2, 1280] for 32x32 images.

    Attributes:
      width: factor of all channels but the last 1280.
    """

    width: float = 0.5

    @property
    def stage_count(self) -> int:
        """Four."""
        return 4

    @property
    def least_pixels(self) -> int:
        """The stem and three of the rows halve the image."""
        return 16

    def check(self) -> None:
        """All rows must keep a channel."""
        require_number("width", self.width, least=1 / 16)

    def stem(self, x: jax.Array, train: bool) -> jax.Array:
        """3x3 convolution with stride 2, BatchNorm, ReLU."""
        layer = ConvNorm(int(32 * self.width), 3, 2, axis_name=self.axis_name, name="stem")
        return layer(x, train=train)

    def stage(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """The rows that share a size of the map."""
        for row in STAGES[index]:
            expansion, channels, blocks, stride = ROWS[row]
            for block in range(blocks):
                x = InvertedResidual(
                    int(channels * self.width),
                    expansion,
                    stride if block == 0 else 1,
                    self.axis_name,
                    name=f"stage{row + 1}_block{block + 1}",
                )(x, train=train)
        return x

    def finish(self, x: jax.Array, train: bool) -> jax.Array:
        """1x1 convolution, BatchNorm, ReLU."""
        return ConvNorm(1280, 1, axis_name=self.axis_name, name="last")(x, train=train)

    def classifier(self) -> nn.Module:
        """One linear layer that begins near zero."""
        return Classifier(self.classes, kernel_init=narrow, zero_bias=True, name="classifier")
