"""Other forms of AFD's transfer layer than the assumed one, to see whether it matters.

For maps of one height and width: `shape` is (height, width, channels) of the map that comes out.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax


class Linear(nn.Module):
    """A 1x1 convolution alone."""

    shape: Sequence[int]

    @nn.compact
    def __call__(self, maps: jax.Array, *, train: bool = True) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, *shape]."""
        return nn.Conv(self.shape[-1], (1, 1), use_bias=False)(maps)


class Wide(nn.Module):
    """Two 3x3 convolutions with a ReLU after each, no BatchNorm."""

    shape: Sequence[int]

    @nn.compact
    def __call__(self, maps: jax.Array, *, train: bool = True) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, *shape]."""
        for _ in range(2):
            maps = nn.relu(nn.Conv(self.shape[-1], (3, 3))(maps))
        return maps
