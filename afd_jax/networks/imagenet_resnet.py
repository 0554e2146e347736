"""ResNets for large images (He et al., 2016), in the form of the widely used published weights.

A bottleneck halves the map in its 3x3 convolution, where the paper's own does so in the first 1x1.
For small images, as in RepDistiller and the codes of CS-KD and TF-KD, the stem is a 3x3 convolution
that keeps their size.
"""

import jax
from flax import linen as nn

from afd_jax.errors import SettingError
from afd_jax.networks.chain import chain
from afd_jax.networks.layers import ConvNorm, max_pool, relu
from afd_jax.networks.resnet import BasicBlock
from afd_jax.networks.resnext import ResNeXtBlock
from afd_jax.networks.staged import StagedNetwork

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class ImageNetResNet(StagedNetwork):
    """The last map is [7, 7, 512] (2048 for depth 50) for 224x224 images, [4, 4, 512] if small.

    Attributes:
      depth: 18 or 34 of basic blocks, or 50 of bottlenecks.
      small: the form for images of 32x32 pixels.
    """

    depth: int = 18
    small: bool = False

    @property
    def stage_count(self) -> int:
        """Four."""
        return 4

    @property
    def least_pixels(self) -> int:
        """The stem halves large images twice, and three stages halve all once."""
        return 8 if self.small else 32

    def check(self) -> None:
        """The depth must be known."""
        if self.depth not in BLOCKS:
            raise SettingError("depth", self.depth, f"must be one of {sorted(BLOCKS)}")

    def stem(self, x: jax.Array, train: bool) -> jax.Array:
        """7x7 convolution, BatchNorm, ReLU and max-pooling; a quarter of the size remains."""
        if self.small:
            return ConvNorm(64, axis_name=self.axis_name, name="stem")(x, train=train)
        x = ConvNorm(64, 7, 2, axis_name=self.axis_name, name="stem")(x, train=train)
        return max_pool(x)

    def stage(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """Blocks; the later stages halve the map."""
        blocks = []
        for block in range(BLOCKS[self.depth][index]):
            stride = 2 if index > 0 and block == 0 else 1
            name = f"stage{index + 1}_block{block + 1}"
            blocks.append(self._block(64 * 2**index, stride, name))
        return chain(blocks, x, train=train, between=relu)

    def activate(self, x: jax.Array) -> jax.Array:
        """ReLU."""
        return relu(x)

    def _block(self, width: int, stride: int, name: str) -> nn.Module:
        if self.depth < 50:
            return BasicBlock(width, stride, self.axis_name, name=name)
        # The bottleneck is the block of a ResNeXt with a single group.
        return ResNeXtBlock(width, 4 * width, 1, stride, self.axis_name, name=name)
