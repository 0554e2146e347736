"""Directions of vectors."""

import jax
import jax.numpy as jnp


def direction(vectors: jax.Array) -> jax.Array:
    """Vectors [..., size] divided by their lengths, for any scale; zeros, with gradient 0, stay."""
    # The largest element goes first: the squares of small values would underflow. It is a constant
    # to the gradient, which the direction's own does not depend on.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(vectors), axis=-1, keepdims=True))
    zero = largest == 0
    vectors = vectors / jnp.where(zero, 1, largest)
    squares = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return jnp.where(zero, 0, vectors * jax.lax.rsqrt(jnp.where(zero, 1, squares)))
