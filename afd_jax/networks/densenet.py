"""DenseNets for small images (Huang et al., "Densely Connected Convolutional Networks", 2017)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from afd_jax.errors import SettingError
from afd_jax.networks.layers import Classifier, conv, norm_relu, require_pixels
from afd_jax.networks.outputs import Outputs


class DenseLayer(nn.Module):
    """Adds `growth` channels to its input, [batch, h, w, c] to [batch, h, w, c + growth].

    Attributes:
      growth: k, new channels.
      bottleneck: a 1x1 convolution to 4k channels comes before the 3x3 one.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    growth: int
    bottleneck: bool
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the layer."""
        y = norm_relu(x, train, self.axis_name, "norm1")
        if self.bottleneck:
            y = conv(4 * self.growth, 1, name="bottleneck")(y)
            y = norm_relu(y, train, self.axis_name, "norm2")
        return jnp.concatenate([x, conv(self.growth, 3, name="conv")(y)], axis=-1)


class DenseNet(nn.Module):
    """Three dense blocks; the last map is [8, 8, channels] for 32x32 images.

    Attributes:
      classes: number of classes.
      depth: 3n+4, or 6n+4 with bottlenecks.
      growth: k, channels that each layer adds.
      bottleneck: the BC form: bottlenecks, twice the growth in the stem, transitions that halve the
        channels. Without it 16 channels in the stem, and transitions keep theirs.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    classes: int
    depth: int = 40
    growth: int = 12
    bottleneck: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """Maps images [batch, height, width, channels] to logits and feature maps.

        Raises:
          SettingError: for a depth that does not fit, or images under 4x4 pixels.
        """
        per_block = 6 if self.bottleneck else 3
        if self.depth < 4 + per_block or (self.depth - 4) % per_block:
            raise SettingError("depth", self.depth, f"must be {per_block}n+4")
        require_pixels(images, 4, f"densenet-{self.depth}-{self.growth}")
        x = conv(2 * self.growth if self.bottleneck else 16, 3, name="stem")(images)
        stages = []
        for block in range(3):
            if block > 0:
                x = norm_relu(x, train, self.axis_name, f"transition{block}_norm")
                channels = x.shape[-1] // (2 if self.bottleneck else 1)
                x = conv(channels, 1, name=f"transition{block}")(x)
                x = nn.avg_pool(x, (2, 2), (2, 2))
            for layer in range((self.depth - 4) // per_block):
                name = f"stage{block + 1}_layer{layer + 1}"
                x = DenseLayer(self.growth, self.bottleneck, self.axis_name, name=name)(
                    x, train=train
                )
            stages.append(x)
        x = norm_relu(x, train, self.axis_name, "norm")
        logits = Classifier(self.classes, name="classifier")(x)
        return Outputs(logits, x, (*stages[:-1], x))
