"""Building blocks that every network here shares: the papers' initialisation and normalisation.

In half precision only kernels of convolutions are halved: a convolution casts its input to its
kernel's type, and BatchNorm and classifier compute in single precision, as their parameters are.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from afd_jax.speedups import conv_general_dilated, relu

Initializer = Callable[..., jax.Array]

# Normal with deviation sqrt(2 / (kernel² * outputs)): He initialisation, fan-out.
he_fan_out: Initializer = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# Likewise of the inputs, sqrt(2 / (kernel² * inputs)).
he_fan_in: Initializer = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
# Uniform in ±1/sqrt(kernel² * inputs): PyTorch's, where a code asks for nothing else.
uniform_kernel: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# Normal with deviation 0.01: linear layers of VGG and MobileNetV2 in distillation papers.
narrow: Initializer = nn.initializers.normal(0.01)


def uniform_fan_in(fan_in: int) -> Initializer:
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
    kernel_init: Initializer = he_fan_out,
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
        kernel_init=kernel_init,
        promote_dtype=_to_kernel,
        conv_general_dilated=conv_general_dilated,
        **kwargs,
    )


def _to_kernel(*arrays: jax.Array | None, dtype: Any = None, inexact: bool = True) -> list[Any]:
    """Input, kernel and bias in the kernel's type, for `nn.Conv`."""
    kernel: Any = arrays[1]
    return [None if x is None else jnp.asarray(x, kernel.dtype) for x in arrays]


def single(x: jax.Array) -> jax.Array:
    """In float32, if it is of lower precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


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
      kernel_init: initial values of the kernel.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1
    bias: bool = False
    relu: bool = True
    axis_name: str | None = None
    kernel_init: Initializer = he_fan_out

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [batch, h, w, c] to [batch, h/stride, w/stride, features]."""
        layer = conv(
            self.features,
            self.kernel,
            self.stride,
            groups=self.groups,
            bias=self.bias,
            kernel_init=self.kernel_init,
            name="conv",
        )
        x = batch_norm(train, self.axis_name)(name="norm")(layer(x))
        return relu(x) if self.relu else x


def max_pool(x: jax.Array) -> jax.Array:
    """Maximum of 3x3 pixels, stride 2, padding 1: [batch, height, width, channels] to half."""
    return nn.max_pool(jnp.pad(x, _BORDER, constant_values=-jnp.inf), **_HALF)


def avg_pool(x: jax.Array) -> jax.Array:
    """Mean of 3x3 pixels, zeros of the padding among them, stride 2, padding 1."""
    return nn.avg_pool(jnp.pad(x, _BORDER), **_HALF)


_BORDER = ((0, 0), (1, 1), (1, 1), (0, 0))  # the padding of Flax's pools gets lost in ONNX
_HALF: dict[str, Any] = {"window_shape": (3, 3), "strides": (2, 2)}


def norm_relu(x: jax.Array, train: bool, axis_name: str | None, name: str) -> jax.Array:
    """BatchNorm and ReLU before a convolution, inside a compact module."""
    return relu(batch_norm(train, axis_name)(name=name)(x))


class Classifier(nn.Module):
    """Global average pooling and one linear layer, or several with ReLU between them.

    Attributes:
      classes: number of classes.
      hidden: widths of the layers before the last.
      kernel_init: initial values of the matrices; None is uniform in ±1/sqrt(inputs).
      zero_bias: biases begin at zero, not as the matrices do by default.
    """

    classes: int
    hidden: Sequence[int] = ()
    kernel_init: Initializer | None = None
    zero_bias: bool = False

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps [batch, height, width, channels] to logits [batch, classes]."""
        x = jnp.mean(single(features), axis=(1, 2))
        for i, width in enumerate(self.hidden):
            x = relu(self._linear(x, width, f"linear{i + 1}"))
        return self._linear(x, self.classes, "linear")

    def _linear(self, x: jax.Array, width: int, name: str) -> jax.Array:
        default = uniform_fan_in(x.shape[-1])
        bias_init = nn.initializers.zeros if self.zero_bias else default
        return nn.Dense(
            width, kernel_init=self.kernel_init or default, bias_init=bias_init, name=name
        )(x)
