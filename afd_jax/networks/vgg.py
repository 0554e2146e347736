"""VGG with BatchNorm for small images (Simonyan and Zisserman, 2015) in distillation papers' form.

Five stages of 3x3 convolutions with bias; the image is halved after the first three, and a linear
layer follows the global average.
"""

import jax
from flax import linen as nn

from afd_jax.errors import SettingError
from afd_jax.networks.layers import Classifier, ConvNorm, require_pixels
from afd_jax.networks.outputs import Outputs

LAYERS = {8: (1, 1, 1, 1, 1), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """The last map is [4, 4, 512] for 32x32 images.

    Attributes:
      classes: number of classes.
      depth: 8, 13 or 16.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    classes: int
    depth: int = 16
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """Maps images [batch, height, width, channels] to logits and feature maps.

        Raises:
          SettingError: for another depth, or images under 8x8 pixels.
        """
        if self.depth not in LAYERS:
            raise SettingError("depth", self.depth, f"must be one of {sorted(LAYERS)}")
        require_pixels(images, 8, f"vgg{self.depth}")
        x, stages = images, []
        for stage, (width, layers) in enumerate(zip(WIDTHS, LAYERS[self.depth], strict=True)):
            for layer in range(layers):
                name = f"stage{stage + 1}_layer{layer + 1}"
                x = ConvNorm(width, bias=True, axis_name=self.axis_name, name=name)(x, train=train)
            stages.append(x)
            if stage < 3:
                x = nn.max_pool(x, (2, 2), (2, 2))
        return Outputs(Classifier(self.classes, name="classifier")(x), x, tuple(stages))
