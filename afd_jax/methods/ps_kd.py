"""PS-KD: Self-Knowledge Distillation with progressive refinement of targets.

Kim, Ji, Yoon, Hwang; ICCV 2021; arXiv 2006.12000, as in the authors' code. With p the probabilities
that the network gave to the same image in the last epoch, in training:

  CE((1 - a_t) onehot(y) + a_t p, softmax(z)),   a_t = 0.8 t / T in epoch t of T

An image that has not been seen yet has its label for p, so the first epoch is plain cross-entropy.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from afd_jax import losses
from afd_jax.methods import options
from afd_jax.methods.batch import Batch
from afd_jax.methods.memory import Memory
from afd_jax.methods.method import Method, Terms, View


@dataclasses.dataclass(frozen=True)
class PSKD(Memory, Method):
    """Each network learns from the labels and from its own predictions one epoch ago.

    Attributes:
      past_weight: a at the end of the run.
    """

    graph: ClassVar[str] = "none"
    teachers: ClassVar[tuple[int, int | None]] = (0, 0)
    peers: ClassVar[bool] = False
    whole_images: ClassVar[str | None] = "remembers what it predicted of each image"

    past_weight: float = options.number(0.8, least=0, most=1)

    @property
    def uses_examples(self) -> bool:
        """For what it predicted."""
        return True

    def begin(self, students: Sequence[str], examples: int, classes: int) -> Any:
        """Probabilities [examples, classes] by node; zeros for an image not seen yet."""
        return {name: jnp.zeros((examples, classes), jnp.float32) for name in students}

    def after_step(self, memory: Any, remembered: Mapping[str, Any], index: jax.Array) -> Any:
        """Replaces those of the batch's images."""
        return {
            name: past.at[index].set(remembered[name]["probabilities"])
            for name, past in memory.items()
        }

    def node(self, own: View, batch: Batch) -> Terms:
        """Cross-entropy with the mixed target."""
        logits = own.logits
        label = batch.soft_label
        if label is None:
            label = losses.label_distribution(batch.label, logits.shape[-1], correct=1.0)
        label = label.astype(logits.dtype)
        past = batch.memory[own.name][batch.index].astype(logits.dtype)
        past = jnp.where(jnp.sum(past, axis=-1, keepdims=True) > 0, past, label)
        weight = self.past_weight * jnp.minimum((batch.epoch + 1) / batch.epochs, 1)
        target = (1 - weight) * label + weight * past
        return Terms(
            logit={"cross_entropy": losses.soft_cross_entropy(logits, target)},
            remembered={"probabilities": jax.nn.softmax(logits.astype(jnp.float32))},
        )
