"""Building blocks that every network here shares: the papers' initialisation and normalisation."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from afd_jax.cpu.convolution import conv_general_dilated

# Normal with deviation sqrt(2 / (kernel² * outputs)): He initialisation, fan-out.
he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def uniform_fan_in(fan_in: int) -> Callable[..., jax.Array]:
    """Uniform in ±1/sqrt(fan_in): what the papers' framework gives its linear layers."""
    bound = fan_in**-0.5

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def conv(
    features: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    bias: bool = False,
    **kwargs: Any,
) -> nn.Conv:
    """A convolution padded by (kernel - 1) // 2 on each side, without bias unless asked for."""
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=stride,
        padding=(kernel - 1) // 2,
        feature_group_count=groups,
        use_bias=bias,
        kernel_init=he_fan_out,
        conv_general_dilated=conv_general_dilated,
        **kwargs,
    )


def relu(x: jax.Array) -> jax.Array:
    """max(x, 0), its gradient 0 at 0; the same values as `jax.nn.relu`.

    Written as a choice because XLA:CPU computes a maximum anew, out of order and ten times slower,
    inside the transpose that a convolution's gradient takes of it.
    """
    return jnp.where(x <= 0, jnp.zeros_like(x), x)


def batch_norm(train: bool, axis_name: str | None) -> Callable[..., nn.BatchNorm]:
    """BatchNorm with decay 0.9 (written 0.1 elsewhere), synchronised over `axis_name` if given."""
    return functools.partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        axis_name=axis_name,
    )


class ConvNorm(nn.Module):
    """Convolution, BatchNorm and, unless left out, ReLU.

    Attributes:
      features: output channels.
      kernel: side of the kernel.
      stride: of the convolution.
      groups: of channels that are convolved apart.
      bias: give the convolution one, though BatchNorm takes it out again (VGG has it).
      relu: end in ReLU.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    bias: bool = False
    relu: bool = True
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [batch, h, w, c] to [batch, h/stride, w/stride, features]."""
        layer = conv(
            self.features, self.kernel, self.stride, groups=self.groups, bias=self.bias, name="conv"
        )
        x = batch_norm(train, self.axis_name)(name="norm")(layer(x))
        return relu(x) if self.relu else x


def norm_relu(x: jax.Array, train: bool, axis_name: str | None, name: str) -> jax.Array:
    """BatchNorm and ReLU before a convolution, inside a compact module."""
    return relu(batch_norm(train, axis_name)(name=name)(x))


class Classifier(nn.Module):
    """Global average pooling and one linear layer."""

    classes: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps [batch, height, width, channels] to logits [batch, classes]."""
        pooled = jnp.mean(features, axis=(1, 2))
        init = uniform_fan_in(pooled.shape[-1])
        return nn.Dense(self.classes, kernel_init=init, bias_init=init, name="linear")(pooled)
