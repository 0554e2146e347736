"""What a loss may look at beside the outputs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from afd_jax.errors import SettingError

_REMEDIES = {
    "label": 'give "label" in the batch: [batch], integers',
    "index": 'give "index" in the batch: [batch], each example\'s number in the data set',
    "progress": "say how long the run is: total_steps",
    "epoch": "say how long an epoch is: steps_per_epoch",
    "epochs": "say how long the run and an epoch are: total_steps and steps_per_epoch",
    "memory": "only a method that is a `Memory` has one",
}


class Batch:
    """A batch without its images; asking for what the caller did not give is a named error.

    Attributes:
      label: [batch], integers; of a mixed image the class with the larger share.
      soft_label: [batch, classes], probabilities: of mixed images, or smoothed; None for neither.
      index: [batch], each example's number in the data set.
      progress: scalar, share of the run that is done, in [0, 1).
      epoch: scalar, how many epochs are done.
      epochs: of the run, perhaps with a fraction.
      memory: the method's own arrays, see `methods.memory`.
      key: of this step, to draw from; the same on all devices, so draw for the whole batch and take
        what stands at `place`.
      whole: gives the examples of all devices, along axis 0, for a loss that compares examples with
        each other; gradients flow back to the devices they came from.
      place: [batch], where the examples of this device stand among them.

    >>> Batch(label=3).index
    Traceback (most recent call last):
    afd_jax.errors.SettingError: batch.index = None: give "index" in the batch: [batch], each \
example's number in the data set
    """

    def __init__(self, **given: Any):
        self.soft_label = None
        self.whole: Callable[[Any], Any] = lambda examples: examples
        self.__dict__.update({name: value for name, value in given.items() if value is not None})

    @property
    def targets(self) -> Any:
        """What a cross-entropy is taken with: the soft labels if there are any, else the labels."""
        return self.label if self.soft_label is None else self.soft_label

    @functools.cached_property
    def place(self) -> jax.Array:
        """[batch], where these examples stand among those of all devices, if these are all."""
        return jnp.arange(len(self.label))

    def __getattr__(self, name: str) -> Any:
        if name in _REMEDIES:
            raise SettingError(f"batch.{name}", None, _REMEDIES[name])
        raise AttributeError(name)
