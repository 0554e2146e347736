"""CRD: Contrastive Representation Distillation.

Tian, Krishnan, Isola; ICLR 2020; arXiv 1910.10699, as in the authors' code (RepDistiller). Pooled
features of student and teacher each go through a linear layer of the student's own and are divided
by their length: v and t. A memory holds both of all N examples. With u_0 the example's own t of the
memory, u_1 .. u_K those of others, and P_j = exp(v . u_j / 0.07) / Z:

  CE(y, softmax(z)) + 0.8 [C(v, memory of t) + C(t, memory of v)] [+ KD]
  C = -log(P_0 / (P_0 + K/N)) - sum over j = 1..K of log(K/N / (P_j + K/N))

1e-7 is added to denominators. Z is N times the mean of exp(v . u_j / 0.07) over the first batch.
After a step the memory of its examples becomes their halved sum with v and t, of length 1.
Different here: the others are drawn from all examples, with replacement; the code draws from those
of other classes, without. The memory begins with vectors that do not depend on the run's seed.
"""

import dataclasses
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from afd_jax.errors import SettingError
from afd_jax.losses.vectors import direction
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.hints import Hinted
from afd_jax.methods.memory import Memory
from afd_jax.methods.method import Terms, View
from afd_jax.networks.heads import Embedding

_SIDES = ("student", "teacher")
_LITTLE = 1e-7


@dataclasses.dataclass(frozen=True)
class CRD(Memory, Hinted):
    """A student tells its teacher's view of an example from those of many others.

    Attributes:
      hint_weight: of the contrast; 0 leaves it out.
      negatives: K, how many others each example is compared with.
      contrast_temperature: what similarities are divided by.
      momentum: share of the old in the memory.
      size: numbers in an embedding.
    """

    teachers: ClassVar[tuple[int, int | None]] = (1, 1)
    peers: ClassVar[bool] = False
    whole_images: ClassVar[str | None] = "remembers an embedding of each image"

    hint_weight: float = soft.weight(0.8)
    negatives: int = options.number(16384, least=1, whole=True)
    # At least so much that exp(1/T) fits into float32.
    contrast_temperature: float = options.number(0.07, least=0.012)
    momentum: float = options.number(0.5, least=0, below=1)
    size: int = options.number(128, least=1, whole=True)

    @property
    def uses_examples(self) -> bool:
        """For their embeddings."""
        return self.hint_weight > 0

    def begin(self, students: Sequence[str], examples: int, classes: int) -> Any:
        """By student both sides' embeddings [examples, size], and their Z, 0 for not known yet.

        Raises:
          SettingError: if the number of examples is not known.
        """
        if not self.hint_weight:
            return {}
        if not examples:
            raise SettingError("examples", examples, "CRD remembers each example; say how many")
        bound = (3 / self.size) ** 0.5

        def bank(name: str) -> jax.Array:
            key = jax.random.key(zlib.crc32(name.encode()))
            return jax.random.uniform(key, (examples, self.size), minval=-bound, maxval=bound)

        return {
            name: {
                side: {"bank": bank(f"{name}/{side}"), "scale": jnp.zeros((), float)}
                for side in _SIDES
            }
            for name in students
        }

    def after_step(self, memory: Any, remembered: Mapping[str, Any], index: jax.Array) -> Any:
        """Moves the examples' embeddings; the first step finds Z."""
        new: dict[str, Any] = dict(memory)
        for name, sides in memory.items():
            if not (found := remembered.get(name)):  # nobody teaches it
                continue
            new[name] = {}
            for side, own in sides.items():
                bank = own["bank"]
                fresh = found[side].astype(bank.dtype)
                moved = self.momentum * bank[index] + (1 - self.momentum) * fresh
                new[name][side] = {
                    "bank": bank.at[index].set(direction(moved)),
                    "scale": _scale(own, found[f"{side}_mean"]),
                }
        return new

    def hint_heads(self, own: View) -> Mapping[str, Any]:
        """An embedding for each side, both the student's own."""
        sides = _SIDES if own.sources else ()
        return {f"embed_{side}": Embedding((self.size,)) for side in sides}

    def hint(self, own: View, source: View, batch: Batch) -> Terms:
        """Both contrasts."""
        memory = batch.memory[own.name]
        student = direction(own.heads["embed_student"](own.pooled))
        teacher = direction(own.heads["embed_teacher"](source.pooled))
        examples = len(memory["student"]["bank"])
        chosen = _chosen(batch, own.name, self.negatives, examples)
        anchors = {"student": student, "teacher": teacher}
        contrast, remembered = jnp.zeros(()), dict(anchors)
        for side, other in zip(_SIDES, _SIDES[::-1], strict=True):
            bank = memory[other]["bank"].astype(student.dtype)
            alike = jnp.take_along_axis(anchors[side] @ bank.T, chosen, axis=1)
            alike = jnp.exp(alike / self.contrast_temperature)
            mean = remembered[f"{side}_mean"] = jax.lax.stop_gradient(jnp.mean(alike, axis=1))
            probabilities = alike / _scale(memory[side], batch.whole(mean)).astype(alike.dtype)
            contrast = contrast + _surprise(probabilities, self.negatives / examples)
        return self.weighed("contrast", source, contrast) + Terms(remembered=remembered)


def _scale(own: Any, means: jax.Array) -> jax.Array:
    """Z: what the memory has, or else from the first batch's means."""
    first = jnp.mean(means).astype(own["scale"].dtype) * len(own["bank"])
    return jnp.where(own["scale"] > 0, own["scale"], first)


def _surprise(probabilities: jax.Array, noise: float) -> jax.Array:
    """The loss C of each example, [batch], from P [batch, 1 + negatives]."""
    below = probabilities + noise + _LITTLE
    own = jnp.log(probabilities[:, 0]) - jnp.log(below[:, 0])
    return -own - jnp.sum(jnp.log(noise) - jnp.log(below[:, 1:]), axis=1)


def _chosen(batch: Batch, name: str, count: int, examples: int) -> jax.Array:
    """The example's own number and those of others, drawn for each: [batch, 1 + count]."""
    key = jax.random.fold_in(batch.key, zlib.crc32(name.encode()))
    shape = (len(batch.whole(batch.index)), count)
    drawn = jax.random.randint(key, shape, 0, examples, batch.index.dtype)[batch.place]
    return jnp.concatenate([batch.index[:, None], drawn], axis=1)
