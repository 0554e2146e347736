"""Random erasing: a box of an image filled with random pixels.

Zhong, Zheng, Kang, Li, Yang, "Random Erasing Data Augmentation", AAAI 2020: a box of 2 to 33 % of
the image's area, a height between 0.3 and 3.3 times its width, evenly on a logarithmic scale as in
torchvision. Ours: a box that is longer than the image is cut to it rather than drawn again.
"""

import jax
import jax.numpy as jnp

AREA = (0.02, 0.33)
RATIO = (0.3, 3.3)


def erased(rng: jax.Array, image: jax.Array, probability: float) -> jax.Array:
    """The image [height, width, channels] uint8, with that probability after erasing."""
    whether_rng, noise_rng, box_rng = jax.random.split(rng, 3)
    wanted = jax.random.bernoulli(whether_rng, probability)
    noise = jax.random.bits(noise_rng, image.shape, jnp.uint8)
    inside = box(box_rng, *image.shape[:2])
    return jnp.where((wanted & inside)[..., None], noise, image)


def box(rng: jax.Array, height: int, width: int) -> jax.Array:
    """A box that lies in the image, as [height, width] bool."""
    area_rng, ratio_rng, *place_rngs = jax.random.split(rng, 4)
    area = height * width * jax.random.uniform(area_rng, minval=AREA[0], maxval=AREA[1])
    low, high = (jnp.log(bound) for bound in RATIO)
    ratio = jnp.exp(jax.random.uniform(ratio_rng, minval=low, maxval=high))
    inside = []
    sides = (height, jnp.sqrt(area * ratio)), (width, jnp.sqrt(area / ratio))
    for (length, side), place_rng in zip(sides, place_rngs, strict=True):
        size = jnp.clip(jnp.round(side).astype(jnp.int32), 1, length)
        first = jax.random.randint(place_rng, (), 0, length - size + 1)
        places = jnp.arange(length)
        inside.append((places >= first) & (places < first + size))
    rows, columns = inside
    return rows[:, None] & columns[None]
