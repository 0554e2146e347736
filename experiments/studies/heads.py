"""Alternatives to the transfer layer that we assume for AFD, to see whether its form matters.

For maps of equal height and width. `shape` is the (height, width, channels) of the output.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax


class Linear(nn.Module):
    """Only a 1x1 convolution."""

    shape: Sequence[int]

    @nn.compact
    def __call__(self, maps: jax.Array, *, train: bool = True) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, *shape]."""
        return nn.Conv(self.shape[-1], (1, 1), use_bias=False)(maps)


class Wide(nn.Module):
    """Two 3x3 convolutions, each followed by a ReLU, without BatchNorm."""

    shape: Sequence[int]

    @nn.compact
    def __call__(self, maps: jax.Array, *, train: bool = True) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, *shape]."""
        for _ in range(2):
            maps = nn.relu(nn.Conv(self.shape[-1], (3, 3))(maps))
        return maps
