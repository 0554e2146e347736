"""Small networks that belong to a method, not to a network: discriminators and transfer layers.

The papers leave their exact form open. Every default here is assumed, and every choice is a field.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from afd_jax.errors import SettingError
from afd_jax.networks.functional import functional, run
from afd_jax.networks.layers import batch_norm, conv, relu, uniform_fan_in, uniform_kernel


class Discriminator(nn.Module):
    """Tells whose feature map it sees: one score per image.

    Blocks of convolution, BatchNorm and LeakyReLU, then one convolution that spans what is left of
    the map (AFD, Chung et al., ICML 2020; kernel, stride, widths and slope are assumed).

    Attributes:
      widths: channels of the blocks, one block each.
      kernel: of the blocks' convolutions.
      stride: of the blocks' convolutions.
      slope: of LeakyReLU.
      sigmoid: end in a sigmoid, so that scores lie in [0, 1] as AFD's least squares need them.
        Losses that take an unbounded score (BCE, hinge, Wasserstein) want False.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    widths: Sequence[int] = (64, 128)
    kernel: int = 3
    stride: int = 2
    slope: float = 0.2
    sigmoid: bool = True
    axis_name: str | None = None

    @nn.compact
    def __call__(self, maps: jax.Array, *, train: bool = True) -> jax.Array:
        """Maps [batch, height, width, channels] to scores [batch]."""
        norm = batch_norm(train, self.axis_name)
        x = maps
        for i, width in enumerate(self.widths):
            x = conv(width, self.kernel, self.stride, name=f"conv{i + 1}")(x)
            x = nn.leaky_relu(norm(name=f"norm{i + 1}")(x), self.slope)
            if 0 in x.shape:
                remedy = f"the kernel does not fit into maps of shape {maps.shape[1:]}"
                raise SettingError("discriminator.kernel", self.kernel, remedy)
        score = nn.Conv(1, x.shape[1:3], padding="VALID", name="score")(x)[:, 0, 0, 0]
        return nn.sigmoid(score) if self.sigmoid else score


class Transfer(nn.Module):
    """Brings a feature map to a common shape, so that two architectures can be compared.

    1x1 convolution, BatchNorm, ReLU (AFD's transfer layer changes the channels; this form is
    assumed), after a bilinear, antialiased resize where height or width differ.

    Attributes:
      shape: (height, width, channels) to bring maps to.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    shape: Sequence[int]
    axis_name: str | None = None

    @nn.compact
    def __call__(self, maps: jax.Array, *, train: bool = True) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, *shape]."""
        height, width, channels = self.shape
        x = conv(channels, 1, name="conv")(resized(maps, (height, width)))
        return relu(batch_norm(train, self.axis_name)(name="norm")(x))


class NonLinearTransformation(nn.Module):
    """Brings a student's feature map to where its teacher's is: 3x3 convolutions, each LeakyReLU.

    FEED's non-linear transformation layer (Park and Kwak, ECAI 2020), and with fewer channels the
    translator and the halves of the paraphraser of factor transfer (Kim, Park, Kwak, NeurIPS 2018).
    Stride 1, padding 1, biases, LeakyReLU after each convolution and initial parameters (uniform in
    ±1/sqrt(9 * inputs), PyTorch's own) are those of the latter's code; the bilinear, antialiased
    resize where height or width differ is assumed.

    Attributes:
      widths: channels after each convolution, (64, 64, 64).
      size: (height, width) to bring maps to; None leaves theirs.
      slope: of LeakyReLU.
      transposed: begin as the transposed convolutions of the paraphraser's decoder do, uniform in
        ±1/sqrt(9 * outputs); at stride 1 they are no other functions.
    """

    widths: Sequence[int]
    size: Sequence[int] | None = None
    slope: float = 0.1
    transposed: bool = False

    @nn.compact
    def __call__(self, maps: jax.Array, *, train: bool = True) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, *size, widths[-1]]."""
        x = resized(maps, self.size or maps.shape[1:3])
        for i, width in enumerate(self.widths):
            init = uniform_fan_in(9 * (width if self.transposed else x.shape[-1]))
            layer = conv(width, 3, bias=True, kernel_init=init, bias_init=init, name=f"conv{i + 1}")
            x = nn.leaky_relu(layer(x), self.slope)
        return x


class Generator(nn.Module):
    """Two 3x3 convolutions with ReLU between them: gives a masked map what it lacks (MGD).

    Attributes:
      channels: of both.
      axis_name: nothing to synchronise.
    """

    channels: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, maps: jax.Array, *, train: bool = True) -> jax.Array:
        """Maps [batch, height, width, channels] to the same shape."""
        x = maps
        for i in range(2):
            x = x if i == 0 else relu(x)
            init = uniform_fan_in(9 * x.shape[-1])
            name = f"conv{i + 1}"
            layer = conv(self.channels, 3, bias=True, kernel_init=init, bias_init=init, name=name)
            x = layer(x)
        return x


class Aligner(nn.Module):
    """One 1x1 convolution, after a bilinear, antialiased resize where height or width differ.

    Attributes:
      shape: (height, width, channels) to bring maps to.
      axis_name: nothing to synchronise.
    """

    shape: Sequence[int]
    axis_name: str | None = None

    @nn.compact
    def __call__(self, maps: jax.Array, *, train: bool = True) -> jax.Array:
        """Maps [batch, height, width, channels] to [batch, *shape]."""
        height, width, channels = self.shape
        init = uniform_fan_in(maps.shape[-1])
        layer = conv(channels, 1, bias=True, kernel_init=init, bias_init=init, name="conv")
        return layer(resized(maps, (height, width)))


class GaussianRegressor(nn.Module):
    """Predicts a teacher's map: at each element a mean, and for each channel a variance.

    Three 1x1 convolutions without biases, ReLU between them, and a free parameter s a channel, of
    which softplus(s) + 1e-5 is the variance, 5 at first (VID, Ahn et al., CVPR 2019, by its code).

    Attributes:
      channels: of the teacher's map, and between the convolutions.
    """

    channels: int
    axis_name: str | None = None  # nothing to synchronise

    @nn.compact
    def __call__(self, maps: jax.Array, *, train: bool = True) -> jax.Array:
        """Maps [batch, h, w, any channels] to means and variances, [batch, h, w, 2 channels]."""
        x = maps
        for i in range(3):
            x = conv(self.channels, 1, kernel_init=uniform_kernel, name=f"conv{i + 1}")(
                x if i == 0 else relu(x)
            )
        start = nn.initializers.constant(math.log(math.expm1(5 - 1e-5)))
        scale = self.param("log_scale", start, (self.channels,))
        variance = jnp.broadcast_to(nn.softplus(scale) + 1e-5, x.shape)
        return jnp.concatenate([x, variance], axis=-1)


class Embedding(nn.Module):
    """Linear layers with ReLU between them, for contrastive losses (MCL, CRD).

    Attributes:
      widths: of the layers.
    """

    widths: Sequence[int]
    axis_name: str | None = None  # nothing to synchronise

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool = True) -> jax.Array:
        """Maps [batch, channels] to [batch, widths[-1]]."""
        x = features
        for i, width in enumerate(self.widths):
            x = x if i == 0 else relu(x)
            init = uniform_fan_in(x.shape[-1])
            x = nn.Dense(width, kernel_init=init, bias_init=init, name=f"linear{i + 1}")(x)
        return x


class ProbabilityDiscriminator(nn.Module):
    """Tells whose predicted probabilities it sees: one score per image.

    Fully connected layers with LeakyReLU, then one to a single number (AI-KD, Kim et al., 2024;
    widths and slope are assumed).

    Attributes:
      widths: of the layers.
      slope: of LeakyReLU.
      sigmoid: end in a sigmoid, as for `Discriminator`.
      spectral: divide each layer's weights by their largest singular value, which bounds the slope
        of the score as the Wasserstein loss needs it (Miyato et al., 2018).
    """

    widths: Sequence[int] = (64, 64)
    slope: float = 0.2
    sigmoid: bool = True
    spectral: bool = False
    axis_name: str | None = None  # nothing to synchronise: statistics come from weights alone

    @nn.compact
    def __call__(self, probabilities: jax.Array, *, train: bool = True) -> jax.Array:
        """Maps [batch, classes] to scores [batch]."""

        def dense(width: int, name: str, x: jax.Array) -> jax.Array:
            layer = nn.Dense(width, name=name)
            if not self.spectral:
                return layer(x)
            return nn.SpectralNorm(layer, name=f"{name}_norm")(x, update_stats=train)

        x = probabilities
        for i, width in enumerate(self.widths):
            x = nn.leaky_relu(dense(width, f"linear{i + 1}", x), self.slope)
        score = dense(1, "score", x)[:, 0]
        return nn.sigmoid(score) if self.sigmoid else score


class LearnedNumber(nn.Module):
    """One number that is learned, whatever it is called on.

    Attributes:
      start: its first value.
    """

    start: float = 0.0
    axis_name: str | None = None  # nothing to synchronise

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = True) -> jax.Array:
        """The number, a scalar."""
        return self.param("number", nn.initializers.constant(self.start), (), jnp.float32)


def resized(maps: jax.Array, size: Sequence[int]) -> jax.Array:
    """Maps [batch, height, width, channels] brought to `size`, bilinearly and antialiased."""
    if maps.shape[1:3] == tuple(size):
        return maps
    return jax.image.resize(maps, (maps.shape[0], *size, maps.shape[-1]), "linear", antialias=True)


def common_shape(shapes: Sequence[Sequence[int]]) -> tuple[int, int, int]:
    """The least height, width and channels among map shapes (height, width, channels).

    >>> common_shape([(8, 8, 64), (8, 8, 128), (4, 4, 256)])
    (4, 4, 64)
    """
    height, width, channels = (min(sizes) for sizes in zip(*shapes, strict=True))
    return height, width, channels


class BoundHead:
    """A head together with its variables, for the length of one trace: call it on an array.

    A head is a Linen or an NNX module that maps one array to one; a Linen module may map several to
    several. It keeps the statistics that each call updates, so that the step can put them into the
    state; nothing outside the trace sees that. With a key it is being initialised: the first call
    draws variables if there are none, and statistics stay as they begin.

    Attributes:
      head: the functional form of the module.
      variables: {"params": ..., "batch_stats": ...}, or None before initialisation.
    """

    def __init__(self, module: Any, variables: Any = None, *, rng: jax.Array | None = None):
        self.head = functional(module, "heads")
        self.variables = variables
        self.rng = rng

    def __call__(self, x: Any, *, keep_statistics: bool = True) -> Any:
        """Applies the head, in training mode unless it is being initialised.

        Args:
          x: what the head maps: an array, or several.
          keep_statistics: let this call update the statistics.
        """
        if self.rng is not None and self.variables is None:
            self.variables = dict(self.head.init(self.rng, x))
        output, statistics = run(self.head, self.variables, x, {}, self.rng is None)
        if keep_statistics:
            self.variables = {**self.variables, **statistics}
        return output
