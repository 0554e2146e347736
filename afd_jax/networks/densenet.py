"""DenseNets for small images (Huang et al., "Densely Connected Convolutional Networks", 2017).

The linear layer's bias begins at zero, as in the authors' code.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from afd_jax.errors import SettingError
from afd_jax.networks.layers import Classifier, Initializer, conv, he_fan_out, norm_relu
from afd_jax.networks.staged import StagedNetwork


class DenseLayer(nn.Module):
    """Adds `growth` channels to its input, [batch, h, w, c] to [batch, h, w, c + growth].

    Attributes:
      growth: k, new channels.
      bottleneck: a 1x1 convolution to 4k channels comes before the 3x3 one.
      axis_name: device axis over which BatchNorm is synchronised.
      kernel_init: initial values of kernels.
    """

    growth: int
    bottleneck: bool
    axis_name: str | None = None
    kernel_init: Initializer = he_fan_out

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Applies the layer."""
        init = self.kernel_init
        y = norm_relu(x, train, self.axis_name, "norm1")
        if self.bottleneck:
            y = conv(4 * self.growth, 1, kernel_init=init, name="bottleneck")(y)
            y = norm_relu(y, train, self.axis_name, "norm2")
        y = conv(self.growth, 3, kernel_init=init, name="conv")(y)
        return jnp.concatenate([x, y], axis=-1)


class DenseNet(StagedNetwork):
    """Three dense blocks; the last map is [8, 8, channels] for 32x32 images.

    Attributes:
      depth: 3n+4, or 6n+4 with bottlenecks.
      growth: k, channels that each layer adds.
      bottleneck: the BC form: bottlenecks, twice the growth in the stem, transitions that halve the
        channels. Without it 16 channels in the stem, and transitions keep theirs.
      kernel_init: initial values of kernels; fan-out as in the authors' code, fan-in in OKDDip's.
    """

    depth: int = 40
    growth: int = 12
    bottleneck: bool = False
    kernel_init: Initializer = he_fan_out

    def check(self) -> None:
        """The depth must fit the number of layers in a block."""
        per_block = 6 if self.bottleneck else 3
        if self.depth < 4 + per_block or (self.depth - 4) % per_block:
            raise SettingError("depth", self.depth, f"must be {per_block}n+4")

    def stem(self, x: jax.Array, train: bool) -> jax.Array:
        """One convolution; its BatchNorm is the first layer's."""
        channels = 2 * self.growth if self.bottleneck else 16
        return conv(channels, 3, kernel_init=self.kernel_init, name="stem")(x)

    def stage(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """A dense block."""
        for layer in range((self.depth - 4) // (6 if self.bottleneck else 3)):
            name = f"stage{index + 1}_layer{layer + 1}"
            x = DenseLayer(
                self.growth, self.bottleneck, self.axis_name, self.kernel_init, name=name
            )(x, train=train)
        return x

    def transition(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """BatchNorm, ReLU and 1x1 convolution; the average of 2x2 pixels."""
        name = f"transition{index + 1}"
        x = norm_relu(x, train, self.axis_name, f"{name}_norm")
        channels = x.shape[-1] // (2 if self.bottleneck else 1)
        x = conv(channels, 1, kernel_init=self.kernel_init, name=name)(x)
        return nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))

    def finish(self, x: jax.Array, train: bool) -> jax.Array:
        """BatchNorm and ReLU, as layers begin with them."""
        return norm_relu(x, train, self.axis_name, "norm")

    def classifier(self) -> nn.Module:
        """One linear layer, its bias zero at first."""
        return Classifier(self.classes, zero_bias=True, name="classifier")
