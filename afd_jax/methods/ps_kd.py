"""PS-KD: Self-Knowledge Distillation with progressive refinement of targets.

Kim, Ji, Yoon, Hwang; ICCV 2021; arXiv 2006.12000, as in the authors' code. With p the probabilities
that the network gave to the same image in the last epoch, in training:

  CE((1 - a_t) onehot(y) + a_t p, softmax(z)),   a_t = 0.8 t / T in epoch t of T

An image that has not been seen yet has its label for p, so the first epoch is plain cross-entropy.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from afd_jax import losses
from afd_jax.errors import require_number
from afd_jax.methods.method import Context, Method, Terms
from afd_jax.networks.outputs import Outputs


@dataclasses.dataclass(frozen=True)
class PSKD(Method):
    """Each network learns from the labels and from its own predictions one epoch ago.

    Attributes:
      past_weight: a at the end of the run.

    Raises:
      SettingError: if a number is out of range.
    """

    past_weight: float = 0.8

    own_graph: ClassVar[str] = "none"
    teacher_count: ClassVar[tuple[int, int | None]] = (0, 0)
    needs_epochs: ClassVar[bool] = True
    uses_examples: ClassVar[bool] = True
    takes_twins: ClassVar[bool] = False
    takes_peers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("method.past_weight", self.past_weight, least=0, most=1)

    @property
    def needs_progress(self) -> bool:
        """For the weight."""
        return True

    def init_memory(self, examples: int, classes: int) -> Any:
        """Probabilities [networks, examples, classes]; zeros for an image not seen yet."""
        return {"predictions": jnp.zeros((self.network_count, examples, classes), jnp.float32)}

    def remember(self, memory: Any, logits: Sequence[jax.Array], index: jax.Array) -> Any:
        """Replaces those of the batch's images."""
        own = jnp.stack([jax.nn.softmax(z.astype(jnp.float32)) for z in logits])
        return {"predictions": memory["predictions"].at[:, index].set(own)}

    def logit_terms(self, k: int, outputs: Sequence[Outputs], context: Context) -> Terms:
        """Cross-entropy with the mixed target."""
        logits = outputs[k].logits
        label = jax.nn.one_hot(context.label, logits.shape[-1], dtype=logits.dtype)
        past = context.memory["predictions"][k, context.index].astype(logits.dtype)
        past = jnp.where(jnp.sum(past, axis=-1, keepdims=True) > 0, past, label)
        weight = self.past_weight * jnp.minimum((context.epoch + 1) / context.epochs, 1)
        target = (1 - weight) * label + weight * past
        return {"cross_entropy": losses.soft_cross_entropy(logits, target)}, {}
