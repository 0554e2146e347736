"""ResNeXt-29 for small images (Xie et al., "Aggregated Residual Transformations", 2017)."""

import jax
from flax import linen as nn

from afd_jax.networks.layers import Classifier, ConvNorm, require_pixels
from afd_jax.networks.outputs import Outputs


class ResNeXtBlock(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions and a shortcut.

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
        return nn.relu(x + y)


class ResNeXt(nn.Module):
    """Three stages of three blocks, 256, 512 and 1024 channels; the last map is [8, 8, 1024].

    Attributes:
      classes: number of classes.
      groups: cardinality C.
      width: d, channels of one group in the first stage; doubled from stage to stage.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    classes: int
    groups: int = 8
    width: int = 64
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """Maps images [batch, height, width, channels] to logits and feature maps.

        Raises:
          SettingError: for images under 4x4 pixels.
        """
        require_pixels(images, 4, f"resnext29-{self.groups}x{self.width}d")
        x = ConvNorm(64, axis_name=self.axis_name, name="stem")(images, train=train)
        stages = []
        for stage in range(3):
            for block in range(3):
                x = ResNeXtBlock(
                    self.groups * self.width * 2**stage,
                    256 * 2**stage,
                    self.groups,
                    2 if stage > 0 and block == 0 else 1,
                    self.axis_name,
                    name=f"stage{stage + 1}_block{block + 1}",
                )(x, train=train)
            stages.append(x)
        return Outputs(Classifier(self.classes, name="classifier")(x), x, tuple(stages))
