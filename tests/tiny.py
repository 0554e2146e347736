"""A network of one's own, by the contract in afd_jax.networks: quick to compile, for tests."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

from afd_jax.networks import Outputs
from afd_jax.networks.layers import ConvNorm
from afd_jax.networks.staged import StagedNetwork


class Tiny(nn.Module):
    """One convolution, BatchNorm, one linear layer."""

    classes: int
    channels: int = 4
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        x = nn.Conv(self.channels, (3, 3), strides=2, use_bias=False)(images)
        x = nn.BatchNorm(not train, momentum=0.9, axis_name=self.axis_name)(x)
        features = nn.relu(x)
        return Outputs(nn.Dense(self.classes)(jnp.mean(features, axis=(1, 2))), features)


class Wider(Tiny):
    """The same with other channels, so that a pair needs a transfer layer."""

    channels: int = 6


class Stages(StagedNetwork):
    """Three stages of one layer, each after the first halving the image; can be cut between two."""

    widths: Sequence[int] = (3, 4, 5)

    def stage(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        layer = ConvNorm(
            self.widths[index],
            stride=1 if index == 0 else 2,
            relu=False,
            axis_name=self.axis_name,
            name=f"stage{index + 1}",
        )
        return layer(x, train=train)

    def activate(self, x: jax.Array) -> jax.Array:
        return nn.relu(x)


class NoAxis(nn.Module):
    """BatchNorm that cannot be synchronised."""

    classes: int

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        x = nn.BatchNorm(not train)(nn.Conv(4, (3, 3))(images))
        return nn.Dense(self.classes)(jnp.mean(x, axis=(1, 2))), x


class LogitsOnly(nn.Module):
    """Forgets the feature map."""

    classes: int

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        return nn.Dense(self.classes)(jnp.mean(images, axis=(1, 2)))


class FlatFeatures(nn.Module):
    """Returns pooled features where a map is wanted."""

    classes: int

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        x = jnp.mean(images, axis=(1, 2))
        return Outputs(nn.Dense(self.classes)(x), x)


class Dropout(nn.Module):
    """Draws random numbers in training."""

    classes: int

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        features = nn.Dropout(0.5, deterministic=not train)(nn.Conv(4, (3, 3))(images))
        return Outputs(nn.Dense(self.classes)(jnp.mean(features, axis=(1, 2))), features)


class Round(nn.Module):
    """One round of a scan."""

    @nn.compact
    def __call__(self, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return nn.relu(nn.Dense(4)(x)), None


@jax.custom_vjp
def straight_through(x: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(jnp.round(x))


straight_through.defvjp(lambda x: (straight_through(x), None), lambda _, g: (g,))


class Wrapped(nn.Module):
    """Flax's wrappers, parameters behind a stop-gradient, and behind a gradient of its own."""

    classes: int

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        x = nn.jit(nn.Conv)(4, (3, 3), strides=2, name="first")(images)
        x = nn.remat(nn.Dense)(4, name="second")(x)
        rounds = nn.scan(Round, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        x, _ = rounds(name="rounds")(x, None)
        x = x + jax.lax.stop_gradient(nn.Dense(4, name="still")(x))
        x = x * straight_through(self.param("rounded", nn.initializers.ones, (1, 1, 1, 4)))
        return nn.jit(nn.Dense)(self.classes, name="classifier")(jnp.mean(x, axis=(1, 2))), x


class Same(Stages):
    """Leaves the names of its layers to Flax."""

    def stage(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        return ConvNorm(3, stride=2, axis_name=self.axis_name)(x, train=train)

    @property
    def stage_count(self) -> int:
        return 2


class OneStage(Stages):
    """Cannot be cut."""

    @property
    def stage_count(self) -> int:
        return 1


class Two(Tiny):
    """Returns two answers."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[Outputs, Outputs]:
        x = nn.Conv(4, (3, 3))(images)
        own = Outputs(nn.Dense(self.classes)(jnp.mean(x, axis=(1, 2))), x)
        return own, own


class InNNX(nnx.Module):
    """Convolution, BatchNorm and classifier in NNX; for images of two channels unless told."""

    def __init__(self, classes: int, channels: int = 4, inputs: int = 2, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(inputs, channels, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(channels, momentum=0.9, rngs=rngs)
        self.classifier = nnx.Linear(channels, classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        features = nnx.relu(self.norm(self.conv(images)))
        return self.classifier(jnp.mean(features, axis=(1, 2))), features


class OwnCritic(nn.Module):
    """A discriminator of one's own: maps to scores in [0, 1]."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, maps: jax.Array, *, train: bool) -> jax.Array:
        x = nn.BatchNorm(not train, momentum=0.9, axis_name=self.axis_name)(nn.Dense(3)(maps))
        return nn.sigmoid(jnp.mean(nn.Dense(1)(nn.relu(x)), axis=(1, 2, 3)))


class OwnCriticInNNX(nnx.Module):
    """Likewise, for maps of five channels."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.first, self.last = nnx.Linear(5, 3, rngs=rngs), nnx.Linear(3, 1, rngs=rngs)
        self.norm = nnx.BatchNorm(3, momentum=0.9, rngs=rngs)

    def __call__(self, maps: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.first(maps)))
        return nnx.sigmoid(jnp.mean(self.last(x), axis=(1, 2, 3)))


class OwnTransfer(nn.Module):
    """A transfer layer of one's own."""

    shape: tuple[int, int, int]

    @nn.compact
    def __call__(self, maps: jax.Array, *, train: bool) -> jax.Array:
        height, width, channels = self.shape
        x = jax.image.resize(maps, (len(maps), height, width, maps.shape[-1]), "nearest")
        return nn.Dense(channels)(x)


class OwnTransformation(nn.Module):
    """A translator of one's own."""

    widths: tuple[int, ...]
    size: tuple[int, int]

    @nn.compact
    def __call__(self, maps: jax.Array, *, train: bool) -> jax.Array:
        return OwnTransfer((*self.size, self.widths[-1]))(maps, train=train)
