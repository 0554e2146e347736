"""Wide ResNets WRN-d-k for small images (Zagoruyko, Komodakis, "Wide Residual Networks", 2016)."""

import jax
from flax import linen as nn

from afd_jax.errors import SettingError
from afd_jax.networks.layers import Classifier, conv, norm_relu, require_pixels
from afd_jax.networks.outputs import Outputs


class WideBlock(nn.Module):
    """Two pre-activated 3x3 convolutions, [batch, h, w, c] to [batch, h/stride, w/stride, width].

    Where the width changes, the shortcut is a 1x1 convolution of the activated input.

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
        if x.shape[-1] != self.width:
            x = conv(self.width, 1, self.stride, name="shortcut")(y)
        y = conv(self.width, 3, self.stride, name="conv1")(y)
        y = norm_relu(y, train, self.axis_name, "norm2")
        return x + conv(self.width, 3, name="conv2")(y)


class WideResNet(nn.Module):
    """Three stages of 16k, 32k and 64k channels; the last map is [8, 8, 64k] for 32x32 images.

    Attributes:
      classes: number of classes.
      depth: 6n+4: 16, 22, 28, 40, ...
      factor: k, how many times wider than a CIFAR ResNet.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    classes: int
    depth: int = 28
    factor: int = 10
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """Maps images [batch, height, width, channels] to logits and feature maps.

        Raises:
          SettingError: for a depth that is not 6n+4, or images under 4x4 pixels.
        """
        if self.depth < 10 or (self.depth - 4) % 6:
            raise SettingError("depth", self.depth, "a wide ResNet has depth 6n+4: 16, 22, 28, 40")
        require_pixels(images, 4, f"wrn-{self.depth}-{self.factor}")
        x = conv(16, 3, name="stem")(images)
        stages = []
        for stage in range(3):
            for block in range((self.depth - 4) // 6):
                stride = 2 if stage > 0 and block == 0 else 1
                name = f"stage{stage + 1}_block{block + 1}"
                width = 16 * 2**stage * self.factor
                x = WideBlock(width, stride, self.axis_name, name=name)(x, train=train)
            stages.append(x)
        x = norm_relu(x, train, self.axis_name, "norm")
        logits = Classifier(self.classes, name="classifier")(x)
        return Outputs(logits, x, (*stages[:-1], x))
