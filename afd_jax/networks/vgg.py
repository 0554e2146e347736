"""VGG with BatchNorm for small images (Simonyan and Zisserman, 2015) in distillation papers' form.

Five stages of 3x3 convolutions with bias; a linear layer follows the global average. In
RepDistiller's form the image is halved after the first three stages, but an image of 64x64 after
four, which is `VGG(halvings=4)` here; in OKDDip's and PCL's after all five, and there are three
linear layers. Initial parameters as in both: kernels normal of deviation
sqrt(2 / (kernel² * outputs)), matrices normal of deviation 0.01, biases zero.
"""

from collections.abc import Sequence

import jax
from flax import linen as nn

from afd_jax.errors import SettingError
from afd_jax.networks.chain import chain
from afd_jax.networks.layers import Classifier, ConvNorm, narrow, relu
from afd_jax.networks.staged import StagedNetwork

LAYERS = {
    8: (1, 1, 1, 1, 1),
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
WIDTHS = (64, 128, 256, 512, 512)


class VGG(StagedNetwork):
    """The last map is [4, 4, 512] for 32x32 images, or [1, 1, 512] if all stages halve them.

    Attributes:
      depth: 8, 11, 13, 16 or 19.
      halvings: number of stages that end in max-pooling, the first ones; 3 to 5.
      hidden: widths of the linear layers before the last, each with ReLU.
    """

    depth: int = 16
    halvings: int = 3
    hidden: Sequence[int] = ()

    @property
    def stage_count(self) -> int:
        """Five."""
        return 5

    @property
    def least_pixels(self) -> int:
        """What can be halved so often."""
        return 2**self.halvings

    def check(self) -> None:
        """Depth and halvings must be known."""
        if self.depth not in LAYERS:
            raise SettingError("depth", self.depth, f"must be one of {sorted(LAYERS)}")
        if self.halvings not in (3, 4, 5):
            raise SettingError("halvings", self.halvings, "must be 3, 4 or 5")

    def stage(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """Convolutions."""
        blocks = [
            ConvNorm(
                WIDTHS[index],
                bias=True,
                relu=False,
                axis_name=self.axis_name,
                name=f"stage{index + 1}_layer{layer + 1}",
            )
            for layer in range(LAYERS[self.depth][index])
        ]
        return chain(blocks, x, train=train, between=relu)

    def activate(self, x: jax.Array) -> jax.Array:
        """ReLU."""
        return relu(x)

    def transition(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """Max-pooling after the first stages."""
        return nn.max_pool(x, window_shape=(2, 2), strides=(2, 2)) if index < self.halvings else x

    def finish(self, x: jax.Array, train: bool) -> jax.Array:
        """Max-pooling after the last stage, too, if it halves the image."""
        return self.transition(4, x, train)

    def classifier(self) -> nn.Module:
        """Linear layers that begin near zero."""
        return Classifier(
            self.classes, tuple(self.hidden), kernel_init=narrow, zero_bias=True, name="classifier"
        )
