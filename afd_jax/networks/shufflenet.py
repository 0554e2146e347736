"""ShuffleNet V1 and V2 for small images (Zhang et al., 2018; Ma et al., 2018).

As distillation papers use them on CIFAR: the stem keeps the image's size, and each of three stages
halves it. Initial parameters are PyTorch's own, uniform in ±1/sqrt(inputs), as in RepDistiller.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from afd_jax.networks import layers
from afd_jax.networks.layers import avg_pool, relu, uniform_kernel
from afd_jax.networks.staged import StagedNetwork

ConvNorm = functools.partial(layers.ConvNorm, kernel_init=uniform_kernel)


def shuffle(x: jax.Array, groups: int) -> jax.Array:
    """Deals the channels of each group out over all groups.

    >>> print(shuffle(jnp.arange(6.0).reshape(1, 1, 1, 6), groups=2)[0, 0, 0])
    [0. 3. 1. 4. 2. 5.]
    """
    parts = x.reshape(*x.shape[:-1], groups, -1)
    return jnp.swapaxes(parts, -1, -2).reshape(x.shape)


class GroupedUnit(nn.Module):
    """Unit of V1: grouped 1x1, shuffle, depthwise 3x3, grouped 1x1, and a shortcut.

    With stride 2 the shortcut is an average, set beside the result rather than added to it. ReLU
    follows outside.

    Attributes:
      out: output channels.
      groups: of the last convolution.
      first_groups: of the first convolution, and of the shuffle.
      stride: 1 or 2.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    out: int
    groups: int
    first_groups: int
    stride: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [batch, h, w, c] to [batch, h/stride, w/stride, out]."""
        axis, inner = self.axis_name, self.out // 4
        y = ConvNorm(inner, 1, groups=self.first_groups, axis_name=axis, name="conv1")(
            x, train=train
        )
        y = shuffle(y, self.first_groups)
        y = ConvNorm(inner, 3, self.stride, groups=inner, axis_name=axis, name="conv2")(
            y, train=train
        )
        y = ConvNorm(self.out, 1, groups=self.groups, relu=False, axis_name=axis, name="conv3")(
            y, train=train
        )
        if self.stride == 1:
            return x + y
        return jnp.concatenate([y, avg_pool(x)], axis=-1)


class ShuffleNetV1(StagedNetwork):
    """The last map is [4, 4, 960] for 32x32 images.

    Attributes:
      groups: of the 1x1 convolutions.
      widths: channels of the stages.
      blocks: units of the stages.
    """

    groups: int = 3
    widths: Sequence[int] = (240, 480, 960)
    blocks: Sequence[int] = (4, 8, 4)

    @property
    def least_pixels(self) -> int:
        """Three stages halve the image."""
        return 8

    def stem(self, x: jax.Array, train: bool) -> jax.Array:
        """1x1 convolution, BatchNorm, ReLU."""
        return ConvNorm(24, 1, axis_name=self.axis_name, name="stem")(x, train=train)

    def stage(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """Units, of which the first halves the map."""
        for block in range(self.blocks[index]):
            x = relu(x) if block else x
            before = x.shape[-1]
            x = GroupedUnit(
                self.widths[index] - before if block == 0 else self.widths[index],
                self.groups,
                1 if before == 24 else self.groups,  # too few channels to group
                2 if block == 0 else 1,
                self.axis_name,
                name=f"stage{index + 1}_block{block + 1}",
            )(x, train=train)
        return x

    def activate(self, x: jax.Array) -> jax.Array:
        """ReLU."""
        return relu(x)


class SplitUnit(nn.Module):
    """Unit of V2: half of the channels pass, the others go through three convolutions; shuffle.

    With stride 2 both halves see all channels, and both are convolved.

    Attributes:
      out: output channels.
      stride: 1 or 2.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    out: int
    stride: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [batch, h, w, c] to [batch, h/stride, w/stride, out]."""
        axis, half = self.axis_name, self.out // 2
        if self.stride == 1:
            passed, y = jnp.split(x, 2, axis=-1)
        else:
            passed, y = x, x
            channels = x.shape[-1]
            passed = ConvNorm(
                channels, 3, 2, groups=channels, relu=False, axis_name=axis, name="pass1"
            )(passed, train=train)
            passed = ConvNorm(half, 1, axis_name=axis, name="pass2")(passed, train=train)
        y = ConvNorm(half, 1, axis_name=axis, name="conv1")(y, train=train)
        y = ConvNorm(half, 3, self.stride, groups=half, relu=False, axis_name=axis, name="conv2")(
            y, train=train
        )
        y = ConvNorm(half, 1, axis_name=axis, name="conv3")(y, train=train)
        return shuffle(jnp.concatenate([passed, y], axis=-1), 2)


class ShuffleNetV2(StagedNetwork):
    """The last map is [4, 4, 1024] for 32x32 images.

    Attributes:
      widths: channels of the stages.
      blocks: units of the stages, after the one that halves the image.
      last: channels of the last 1x1 convolution.
    """

    widths: Sequence[int] = (116, 232, 464)
    blocks: Sequence[int] = (3, 7, 3)
    last: int = 1024

    @property
    def least_pixels(self) -> int:
        """Three stages halve the image."""
        return 8

    def stem(self, x: jax.Array, train: bool) -> jax.Array:
        """1x1 convolution, BatchNorm, ReLU."""
        return ConvNorm(24, 1, axis_name=self.axis_name, name="stem")(x, train=train)

    def stage(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """Units, of which the first halves the map."""
        for block in range(1 + self.blocks[index]):
            stride, name = 2 if block == 0 else 1, f"stage{index + 1}_block{block + 1}"
            unit = SplitUnit(self.widths[index], stride, self.axis_name, name=name)
            x = unit(x, train=train)
        return x

    def finish(self, x: jax.Array, train: bool) -> jax.Array:
        """1x1 convolution, BatchNorm, ReLU."""
        return ConvNorm(self.last, 1, axis_name=self.axis_name, name="last")(x, train=train)
