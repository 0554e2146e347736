"""A network that is quick to trace, for settings that are only checked."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class OneLayer(nn.Module):
    """A convolution and a linear layer."""

    classes: int

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        """Logits and the feature map."""
        features = nn.relu(nn.Conv(4, (3, 3), strides=2)(images))
        return nn.Dense(self.classes)(jnp.mean(features, axis=(1, 2))), features
