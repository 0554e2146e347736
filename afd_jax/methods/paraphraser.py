"""The paraphraser of factor transfer, which is trained on a frozen teacher before its student is.

Kim, Park, Kwak; NeurIPS 2018. Of the teacher's last map x, an encoder makes a factor of fewer
channels, and a decoder the map again: the loss is the mean of |decoder(encoder(x)) - x|. Three
convolutions each (the decoder's are transposed in the paper, which at stride 1 is the same class of
functions).
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from afd_jax import losses
from afd_jax.networks.heads import BoundHead, NonLinearTransformation


def factor_channels(maps: Any, rate: float) -> int:
    """Channels of the factor of a map with `rate` of its channels, at least 1."""
    return max(1, round(rate * maps.shape[-1]))


def encoder(maps: Any, rate: float) -> NonLinearTransformation:
    """The half that makes a factor of maps [batch, height, width, channels]; shapes will do."""
    factor = factor_channels(maps, rate)
    return NonLinearTransformation((maps.shape[-1], factor, factor))


def decoder(channels: int, factor: int) -> NonLinearTransformation:
    """The half that makes the map again."""
    return NonLinearTransformation((factor, channels, channels), transposed=True)


def reconstruction(halves: tuple[Any, Any], params: tuple[Any, Any], maps: jax.Array) -> jax.Array:
    """How far maps are from those given back, [batch].

    Args:
      halves: encoder and decoder.
      params: of both.
      maps: [batch, height, width, channels].
    """
    first, second = (
        BoundHead(module, {"params": own}) for module, own in zip(halves, params, strict=True)
    )
    return losses.l1_alignment(second(first(maps)), maps)


def train(
    first: Any,
    channels: int,
    rate: float,
    maps: Iterator[jax.Array],
    optimizer: optax.GradientTransformation,
    rng: jax.Array,
) -> Any:
    """Trains encoder and decoder together, a step for each batch of maps.

    Args:
      first: the encoder's variables, {"params": ...}.
      channels: of the maps.
      rate: as in `encoder`.
      maps: the teacher's last maps, [batch, height, width, channels] each.
      optimizer: of both halves.
      rng: the decoder's first parameters are drawn from it.

    Returns:
      The encoder's variables.
    """
    shape = jax.ShapeDtypeStruct((2, 1, 1, channels), jnp.float32)
    factor = factor_channels(shape, rate)
    halves = (encoder(shape, rate), decoder(channels, factor))
    blank = jnp.zeros((2, 1, 1, factor), jnp.float32)
    params = (first["params"], halves[1].init(rng, blank, train=False)["params"])
    state = optimizer.init(params)
    step = jax.jit(update, static_argnums=(0, 1))
    for each in maps:
        params, state, _ = step(halves, optimizer, params, state, each)
    return {"params": params[0]}


def update(
    halves: tuple[Any, Any],
    optimizer: optax.GradientTransformation,
    params: tuple[Any, Any],
    state: Any,
    maps: jax.Array,
) -> tuple[Any, Any, jax.Array]:
    """One step; returns new parameters and optimizer state, and the loss before it."""

    def loss(params: tuple[Any, Any]) -> jax.Array:
        return losses.mean(reconstruction(halves, params, maps))

    value, gradient = jax.value_and_grad(loss)(params)
    steps, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, steps), state, value
