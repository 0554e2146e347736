"""What the networks here share: a stem, stages and a classifier, which can be run in part."""

from typing import Any

import jax
from flax import linen as nn

from afd_jax.errors import SettingError
from afd_jax.networks.layers import Classifier, single
from afd_jax.networks.outputs import Outputs


class StagedNetwork(nn.Module):
    """A network that can be cut between two stages, so that several can share the lower ones.

    A subclass overrides `stage`, and what else it has of the functions below; they are called
    inside one compact method and give their layers names of their own.

    Attributes:
      classes: number of classes.
      axis_name: device axis over which BatchNorm is synchronised; None on one device and under jit.
    """

    classes: int
    axis_name: str | None = None

    @property
    def stage_count(self) -> int:
        """Number of stages; a feature map stands at the end of each."""
        return 3

    @property
    def least_pixels(self) -> int:
        """Height and width of the smallest images that leave a map."""
        return 4

    def check(self) -> None:
        """Raises SettingError for fields that make no network."""

    def stem(self, x: jax.Array, train: bool) -> jax.Array:
        """What comes before the first stage."""
        return x

    def stage(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """Stage `index`, counted from 0, without what `activate` does."""
        raise NotImplementedError

    def activate(self, x: jax.Array) -> jax.Array:
        """What ends every stage, after its last sum or normalisation: ReLU, say."""
        return x

    def transition(self, index: int, x: jax.Array, train: bool) -> jax.Array:
        """What stands between stage `index` and the next."""
        return x

    def finish(self, x: jax.Array, train: bool) -> jax.Array:
        """What stands between the last stage and the last feature map."""
        return x

    def classifier(self) -> nn.Module:
        """Maps the last feature map to logits; its name is "classifier"."""
        return Classifier(self.classes, name="classifier")

    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """Maps images [batch, height, width, channels] to logits and feature maps.

        Raises:
          SettingError: for images that are too small, or fields that make no network.
        """
        return self._run(images, train, 0, self.stage_count)

    def lower(self, images: jax.Array, *, train: bool, stages: int) -> jax.Array:
        """Runs the first `stages` stages: images to a map [batch, h, w, c]. Raises as a call."""
        return self._run(images, train, 0, stages)

    def upper(self, maps: jax.Array, *, train: bool, stages: int) -> Outputs:
        """Runs what follows the first `stages` stages, on the map that `lower` gives."""
        return self._run(maps, train, stages, self.stage_count)

    def after(self, maps: jax.Array, *, train: bool, stages: int) -> Outputs:
        """Runs what follows the end of stage `stages`, on a map like `Outputs.stages` has there."""
        return self._run(maps, train, stages, self.stage_count, at_end=True)

    @nn.compact
    def _run(self, x: jax.Array, train: bool, first: int, last: int, at_end: bool = False) -> Any:
        if first == 0:
            self.check()
            if min(x.shape[1:3]) < self.least_pixels:
                least = f"{self.least_pixels}x{self.least_pixels}"
                remedy = f"{type(self).__name__} needs at least {least} pixels"
                raise SettingError("image size", x.shape[1:3], remedy)
            x = self.stem(x, train)
        if at_end and first < self.stage_count:
            x = self.transition(first - 1, x, train)
        maps, before = [], []
        for index in range(first, last):
            before.append(self.stage(index, x, train))
            x = self.activate(before[-1])
            maps.append(single(x))
            if index + 1 < self.stage_count:
                x = self.transition(index, x, train)
        if last < self.stage_count:
            return single(x)
        features = single(self.finish(x, train))
        return Outputs(
            self.classifier()(features),
            features,
            stages=tuple(maps),
            preactivations=tuple(map(single, before)),
        )
