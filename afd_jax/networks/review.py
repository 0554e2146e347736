"""The review of ReviewKD: a student's maps, fused from the deepest up, brought to a teacher's."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from afd_jax.networks.layers import Initializer, batch_norm, conv, uniform_fan_in

# Uniform in ±sqrt(3 / (kernel² * inputs)), as in the authors' code.
_kernel_init: Initializer = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


class Review(nn.Module):
    """From the deepest map up: each, in `width` channels, is mixed with what came from below it.

    The two are weighed by two maps in [0, 1] that a convolution makes of both. A 3x3 convolution
    brings the mixture to the teacher's shape (Chen, Liu, Zhao, Jia; CVPR 2021, by their code;
    sizes are changed by taking the nearest element).

    Attributes:
      width: channels of what is passed up.
      shapes: (height, width, channels) of the teacher's maps, the deepest last.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    width: int
    shapes: Sequence[tuple[int, int, int]]
    axis_name: str | None = None

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], *, train: bool = True) -> tuple[jax.Array, ...]:
        """Maps, [batch, height, width, channels] each, to as many of `shapes`."""
        norm = batch_norm(train, self.axis_name)
        results: list[jax.Array] = []
        below: jax.Array | None = None
        for n in reversed(range(len(maps))):
            height, width, channels = self.shapes[n]
            x = conv(self.width, 1, kernel_init=_kernel_init, name=f"reduce{n + 1}")(maps[n])
            x = norm(name=f"reduce{n + 1}_norm")(x)
            if below is not None:
                below = _nearest(below, x.shape[1:3])
                init = uniform_fan_in(2 * self.width)
                weigh = conv(
                    2, 1, bias=True, kernel_init=init, bias_init=init, name=f"weigh{n + 1}"
                )
                shares = nn.sigmoid(weigh(jnp.concatenate([x, below], axis=-1)))
                x = x * shares[..., :1] + below * shares[..., 1:]
            below = _nearest(x, (height, width))
            y = conv(channels, 3, kernel_init=_kernel_init, name=f"expand{n + 1}")(below)
            results.insert(0, norm(name=f"expand{n + 1}_norm")(y))
        return tuple(results)


def _nearest(maps: jax.Array, size: Sequence[int]) -> jax.Array:
    """Each element of the new map is the one at its upper left corner's place in the old."""
    for axis, new in zip((1, 2), size, strict=True):
        old = maps.shape[axis]
        if old != new:
            maps = jnp.take(maps, jnp.arange(new) * old // new, axis=axis)
    return maps
