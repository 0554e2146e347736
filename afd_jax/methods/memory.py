"""Arrays that a method keeps during a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax


class Memory:
    """Mixed into a method that remembers: something of each example, or of the held-out images.

    The arrays are part of the state, and `Batch.memory` in the losses.
    """

    @property
    def uses_examples(self) -> bool:
        """Whether `after_step` is to be called."""
        return False

    @property
    def uses_heldout(self) -> bool:
        """Whether the memory is renewed once an epoch from the held-out set."""
        return False

    def begin(self, students: Sequence[str], examples: int, classes: int) -> Any:
        """The memory at the start, a pytree.

        Args:
          students: names of the nodes.
          examples: of the training set; 0 if it is not known.
          classes: number of classes.
        """
        return {}

    def after_step(self, memory: Any, remembered: Mapping[str, Any], index: jax.Array) -> Any:
        """The memory after a step.

        Args:
          memory: before.
          remembered: by node its `Terms.remembered`, [batch, ...] each, of the whole batch over all
            devices; from the first forward pass, before the step.
          index: [batch], of each example in the data set.
        """
        return memory

    def heldout_sums(
        self, logits: Mapping[str, jax.Array], label: jax.Array, mask: jax.Array
    ) -> Any:
        """What `after_epoch` wants to know about a batch of the held-out set, as sums.

        Args:
          logits: by node, [batch, classes].
          label: [batch].
          mask: [batch], False for padding.
        """
        return {}

    def after_epoch(self, memory: Any, sums: Any) -> Any:
        """The memory for the next epoch, from the sums over the held-out set."""
        return memory
