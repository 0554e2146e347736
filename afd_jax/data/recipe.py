"""Augmentation and normalisation, on the device, inside the training program."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from afd_jax.data.erase import erased
from afd_jax.data.mix import Mix
from afd_jax.data.trivial import trivially_augmented
from afd_jax.errors import SettingError, one_of, require_flag, require_list, require_number

PAD_MODES = ("reflect", "zero")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Pad, crop back to size at random, flip, rotate, TrivialAugment, erase, normalise, mix.

    Attributes:
      mean: per channel, as fractions of 255.
      std: per channel, likewise.
      pad: pixels added on each side before the crop; 0 for no crop.
      pad_mode: "reflect", or "zero" for black.
      flip: mirror half of the images left to right.
      rotate: turn by up to so many degrees either way; what comes in from outside is black.
      trivial_augment: one operation of TrivialAugment, see `data.trivial`.
      erase: probability that a box is filled with random pixels, see `data.erase`.
      mixup: alpha of mixup, 0 for none; see `data.mix`.
      cutmix: alpha of CutMix, likewise.

    Raises:
      SettingError: for a value that is no number, a deviation of 0, a negative pad or an unknown
        mode.
    """

    mean: Sequence[float]
    std: Sequence[float]
    pad: int = 0
    pad_mode: str = "reflect"
    flip: bool = False
    rotate: float = 0.0
    trivial_augment: bool = False
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        require_number("data.pad", self.pad, least=0, whole=True)
        require_flag("data.flip", self.flip)
        require_number("data.rotate", self.rotate, least=0, most=180)
        require_flag("data.trivial_augment", self.trivial_augment)
        require_number("data.erase", self.erase, least=0, most=1)
        Mix(self.mixup, self.cutmix)
        for field, values in (("data.mean", self.mean), ("data.std", self.std)):
            require_list(field, values)
            for value in values:
                require_number(field, value, above=0 if field == "data.std" else None)
                if abs(value) > 1:
                    remedy = "is a fraction of 255: 0.491, not 125.3"
                    raise SettingError(field, values, remedy)
        if self.pad_mode not in PAD_MODES:
            raise SettingError("data.pad_mode", self.pad_mode, one_of(self.pad_mode, PAD_MODES))

    def check(self, image_shape: tuple[int, int, int]) -> None:
        """Raises SettingError unless the recipe fits images (height, width, channels)."""
        for field, values in (("data.mean", self.mean), ("data.std", self.std)):
            if len(values) != image_shape[-1]:
                remedy = f"images have {image_shape[-1]} channels; give one value for each"
                raise SettingError(field, values, remedy)
        if self.pad >= min(image_shape[:2]):  # nothing to reflect, or crops without any image
            remedy = f"images of {image_shape[:2]} allow at most {min(image_shape[:2]) - 1}"
            raise SettingError("data.pad", self.pad, remedy)

    @property
    def mix(self) -> Mix | None:
        """How images are mixed after `train`; None if they are not."""
        return Mix(self.mixup, self.cutmix) or None

    def train(self, rng: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
        """Augments and normalises a batch.

        Each image draws from `fold_in(rng, its index)`, so its augmentation is the same on
        whichever device it falls.

        Args:
          rng: key of this step.
          batch: "image" [batch, h, w, c] uint8 and "index" [batch].

        Returns:
          [batch, h, w, c] float32.
        """
        keys = jax.vmap(jax.random.fold_in, (None, 0))(rng, batch["index"])
        return self.normalise(jax.vmap(self._augment)(keys, batch["image"]))

    def test(self, rng: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
        """Normalises only; `rng` is not used."""
        return self.normalise(batch["image"])

    def normalise(self, images: jax.Array) -> jax.Array:
        """uint8 to float32 with the recipe's mean and deviation taken out, per channel.

        Raises:
          TypeError: for floats, which may be normalised already.
        """
        if images.dtype != jnp.uint8:
            words = f"images must be uint8, from 0 to 255, not {images.dtype}; `Examples.batch` "
            raise TypeError(words + "returns normalised ones, `Examples.images` has the bytes")
        return self.normalise_pixels(images)

    def normalise_pixels(self, images: jax.Array) -> jax.Array:
        """The same of any numbers from 0 to 255."""
        mean, std = (
            jnp.asarray(values, jnp.float32).reshape(1, 1, 1, -1)
            for values in (self.mean, self.std)
        )
        return (images.astype(jnp.float32) / 255 - mean) / std

    def _augment(self, rng: jax.Array, image: jax.Array) -> jax.Array:
        crop_rng, flip_rng = jax.random.split(rng)
        if self.pad:
            margins = ((self.pad, self.pad), (self.pad, self.pad), (0, 0))
            mode = "reflect" if self.pad_mode == "reflect" else "constant"
            corner = jax.random.randint(crop_rng, (2,), 0, 2 * self.pad + 1)
            start = (corner[0], corner[1], jnp.zeros_like(corner[0]))
            image = jax.lax.dynamic_slice(jnp.pad(image, margins, mode=mode), start, image.shape)
        if self.flip:
            image = jnp.where(jax.random.bernoulli(flip_rng), image[:, ::-1], image)
        if self.rotate:
            limit = math.radians(self.rotate)
            # Not 1: `split` has drawn from that.
            angle_rng = jax.random.fold_in(rng, 4)
            angle = jax.random.uniform(angle_rng, (), minval=-limit, maxval=limit)
            image = _rotated(image, angle)
        if self.trivial_augment:
            image = trivially_augmented(jax.random.fold_in(rng, 2), image)
        if self.erase:
            image = erased(jax.random.fold_in(rng, 3), image, self.erase)
        return image


def _rotated(image: jax.Array, angle: jax.Array) -> jax.Array:
    """The image [h, w, c] turned about its centre by an angle in radians; the nearest pixels."""
    height, width, _ = image.shape
    y, x, c = jnp.meshgrid(*(jnp.arange(n) for n in image.shape), indexing="ij")
    dy, dx = y - (height - 1) / 2, x - (width - 1) / 2
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    places = [cos * dy - sin * dx + (height - 1) / 2, sin * dy + cos * dx + (width - 1) / 2, c]
    return jax.scipy.ndimage.map_coordinates(image, places, order=0, mode="constant", cval=0)
