"""One small network in Linen and in NNX, with the same names, so that variables fit both."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

from afd_jax.networks import Outputs


class InLinen(nn.Module):
    """Convolution, BatchNorm, two layers, Dropout, classifier."""

    classes: int = 5
    rate: float = 0.5
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        x = nn.Conv(4, (3, 3), strides=2, name="conv")(images)
        x = nn.BatchNorm(not train, momentum=0.9, axis_name=self.axis_name, name="norm")(x)
        for i in range(2):
            x = nn.relu(nn.Dense(4, name=f"layers_{i}")(x))
        pooled = nn.Dropout(self.rate, deterministic=not train)(jnp.mean(x, axis=(1, 2)))
        return Outputs(nn.Dense(self.classes, name="classifier")(pooled), x)


class InNNX(nnx.Module):
    """The same; its layers are a list."""

    def __init__(self, classes: int = 5, rate: float = 0.5, channels: int = 2, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(channels, 4, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(2)])
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.classifier = nnx.Linear(4, classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> Outputs:
        x = self.norm(self.conv(images))
        for layer in self.layers:
            x = nnx.relu(layer(x))
        pooled = self.dropout(jnp.mean(x, axis=(1, 2)))
        return Outputs(self.classifier(pooled), x)


def as_linen(variables):
    """NNX's variables under Linen's names."""
    params = dict(variables["params"])
    params |= {f"layers_{i}": own for i, own in params.pop("layers").items()}
    return {**variables, "params": params}
