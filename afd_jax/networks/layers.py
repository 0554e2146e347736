"""Building blocks that every network here shares: the papers' initialisation and normalisation."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

# Normal with deviation sqrt(2 / (kernel² * outputs)): He initialisation, fan-out.
he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def uniform_fan_in(fan_in: int) -> Callable[..., jax.Array]:
    """Uniform in ±1/sqrt(fan_in): what the papers' framework gives its linear layers."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def conv(features: int, kernel: int, stride: int = 1, **kwargs: Any) -> nn.Conv:
    """A convolution without bias, padded by (kernel - 1) // 2 on each side."""
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=stride,
        padding=(kernel - 1) // 2,
        use_bias=False,
        kernel_init=he_fan_out,
        **kwargs,
    )


def batch_norm(train: bool, axis_name: str | None) -> Callable[..., nn.BatchNorm]:
    """BatchNorm with decay 0.9 (written 0.1 elsewhere), synchronised over `axis_name` if given."""
    return functools.partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        axis_name=axis_name,
    )


class Classifier(nn.Module):
    """Global average pooling and one linear layer."""

    classes: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps [batch, height, width, channels] to logits [batch, classes]."""
        pooled = jnp.mean(features, axis=(1, 2))
        init = uniform_fan_in(pooled.shape[-1])
        return nn.Dense(self.classes, kernel_init=init, bias_init=init, name="linear")(pooled)
