"""Two images in one: mixup and CutMix.

Both say how much of each pixel is the image's own; the rest is another image's, and the labels are
shared in the same proportion. `engine.step` picks the other image and mixes.
"""

import dataclasses

import jax
import jax.numpy as jnp

from afd_jax.errors import require_number


@dataclasses.dataclass(frozen=True)
class Mix:
    """How the images of a batch are mixed; of two ways, one is drawn for each batch, evenly.

    Attributes:
      mixup: alpha of mixup; 0 for none.
      cutmix: alpha of CutMix; 0 for none.

    Raises:
      SettingError: for an alpha that is no number or below 0.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        require_number("data.mixup", self.mixup, least=0)
        require_number("data.cutmix", self.cutmix, least=0)

    def __bool__(self) -> bool:
        """Whether there is anything to mix."""
        return bool(self.mixup or self.cutmix)

    def __call__(self, rng: jax.Array, height: int, width: int) -> jax.Array:
        """The image's own share of each pixel, [height, width], one for a whole batch."""
        which, draw = jax.random.split(rng)
        if not self.cutmix:
            return mixup_share(draw, self.mixup, height, width)
        if not self.mixup:
            return cutmix_share(draw, self.cutmix, height, width)
        return jnp.where(
            jax.random.bernoulli(which),
            mixup_share(draw, self.mixup, height, width),
            cutmix_share(draw, self.cutmix, height, width),
        )


def mixup_share(rng: jax.Array, alpha: float, height: int, width: int) -> jax.Array:
    """The same share everywhere, from Beta(alpha, alpha), [height, width].

    Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    """
    return jnp.full((height, width), jax.random.beta(rng, alpha, alpha, dtype=jnp.float32))


def cutmix_share(rng: jax.Array, alpha: float, height: int, width: int) -> jax.Array:
    """0 in a box, 1 around it, [height, width].

    Yun, Han, Oh, Chun, Choe, Yoo, "CutMix", ICCV 2019: with a share s from Beta(alpha, alpha), the
    box has sqrt(1 - s) of the image's height and width, its centre is anywhere in the image, and
    what lies outside is cut off.
    """
    share_rng, y_rng, x_rng = jax.random.split(rng, 3)
    side = jnp.sqrt(1 - jax.random.beta(share_rng, alpha, alpha, dtype=jnp.float32))
    inside = []
    for length, own_rng in ((height, y_rng), (width, x_rng)):
        size = jnp.floor(side * length).astype(jnp.int32)
        first = jax.random.randint(own_rng, (), 0, length) - size // 2
        places = jnp.arange(length)
        inside.append((places >= first) & (places < first + size))
    rows, columns = inside
    return 1 - (rows[:, None] & columns[None]).astype(jnp.float32)
