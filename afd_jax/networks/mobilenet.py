"""MobileNetV2 for small images (Sandler et al., 2018), of half width as distillation papers use it.

The stem halves the image, and so do three of the stages: 32x32 images give a last map of 2x2.
"""

import jax
from flax import linen as nn

from afd_jax.networks.layers import Classifier, ConvNorm, require_pixels
from afd_jax.networks.outputs import Outputs

# Expansion, channels at full width, blocks, stride of the first block.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


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


class MobileNetV2(nn.Module):
    """The last map is [2, 2, 1280] for 32x32 images.

    Attributes:
      classes: number of classes.
      width: factor of all channels but the last 1280.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    classes: int
    width: float = 0.5
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """Maps images [batch, height, width, channels] to logits and feature maps.

        Raises:
          SettingError: for images under 16x16 pixels.
        """
        require_pixels(images, 16, "mobilenet_v2")
        axis = self.axis_name
        x = ConvNorm(int(32 * self.width), 3, 2, axis_name=axis, name="stem")(images, train=train)
        stages = []
        for stage, (expansion, channels, blocks, stride) in enumerate(STAGES):
            if stride == 2:  # the map before it is the end of a stage
                stages.append(x)
            for block in range(blocks):
                x = InvertedResidual(
                    int(channels * self.width),
                    expansion,
                    stride if block == 0 else 1,
                    axis,
                    name=f"stage{stage + 1}_block{block + 1}",
                )(x, train=train)
        x = ConvNorm(1280, 1, axis_name=axis, name="last")(x, train=train)
        return Outputs(Classifier(self.classes, name="classifier")(x), x, (*stages, x))
