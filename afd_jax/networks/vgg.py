"""VGG with BatchNorm for small images (Simonyan and Zisserman, 2015) in distillation papers' form.

Five stages of 3x3 convolutions with bias; the image is halved after the first three, and a linear
layer follows the global average.
"""

import jax
from flax import linen as nn

from afd_jax.errors import SettingError
from afd_jax.networks.layers import ConvNorm
from afd_jax.networks.staged import StagedNetwork

LAYERS = {8: (1, 1, 1, 1, 1), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
WIDTHS = (64, 128, 256, 512, 512)


class VGG(StagedNetwork):
    """The last map is [4, 4, 512] for 32x32 images.

    Attributes:
      depth: 8, 13 or 16.
    """

    depth: int = 16

    @property
    def stage_count(self) -> int:
        """Five."""
        return 5

    @property
    def least_pixels(self) -> int:
        """Three transitions halve the image."""
        return 8

    def check(self) -> None:
        """The depth must be known."""
        if self.depth not in LAYERS:
            raise SettingError("depth", self.depth, f"must be one of {sorted(LAYERS)}")

    def stage(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """Convolutions."""
        for layer in range(LAYERS[self.depth][index]):
            name = f"stage{index + 1}_layer{layer + 1}"
            norm = ConvNorm(WIDTHS[index], bias=True, axis_name=self.axis_name, name=name)
            x = norm(x, train=train)
        return x

    def transition(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """Max-pooling after the first three stages."""
        return nn.max_pool(x, (2, 2), (2, 2)) if index < 3 else x
