"""Ensembled distillation: a gate weighs the teachers for each example.

Zhu, Liu, Li, Lai, He, Chen, Zheng; "Ensembled CTR Prediction via Knowledge Distillation"; CIKM
2020; arXiv 2011.04106. The paper's networks predict clicks; here they predict classes. For a
student with logits z and frozen teachers m = 1..M with logits z_m:

  g = softmax(W [z_1, ..., z_M] + b)                      one weight for each teacher and example
  t = sum of g_m softmax(z_m / T)                         the target
  a CE(y, softmax(z)) + b T² KL(t || softmax(z / T))      trains the student
  CE(y, sum of g_m softmax(z_m))                          trains the gate

t is a constant in the divergence, so that the gate cannot choose the teacher that is easiest to
imitate. The paper has several teachers, a softmax gate that weighs them for each example, and a
distillation loss beside that of the labels. Assumed: what the gate sees, the teachers' logits side
by side, and what it learns from; that the network's logit optimizer moves it; a = 0.1, b = 0.9 and
T = 4, those of `kd`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from afd_jax import losses
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.kd import KD
from afd_jax.methods.method import Terms, View
from afd_jax.networks.heads import Embedding


@dataclasses.dataclass(frozen=True)
class EnsembleKD(KD):
    """Each network learns from the labels and from a weighted mean of what its teachers predict.

    With one teacher it is `KD`.

    Attributes:
      gate: "learned", or "mean" for even weights.
      temperature, label_weight, distillation_weight, standardize: as in `KD`. Without a divergence
        there is no gate either, and it sees logits as they are.
    """

    peers: ClassVar[bool] = False

    gate: str = options.choice("learned", ("learned", "mean"))

    def heads(self, own: View) -> Mapping[str, Any]:
        """The gate, where there is something to choose from."""
        count = len(own.sources)
        wanted = self.gate == "learned" and self.distillation_weight and count > 1
        return {"gate": Embedding((count,))} if wanted else {}

    def losses(self, own: View, sources: Sequence[View], batch: Batch) -> Terms:
        """The weighted cross-entropy, the divergence from the target, and what the gate pays."""
        terms = soft.taught(self, own, batch)
        if not (sources and self.distillation_weight):
            return terms
        logits, taught = own.logits, jnp.stack([source.logits for source in sources], axis=1)
        if gate := own.heads.get("gate"):
            log_gate = jax.nn.log_softmax(gate(taught.reshape(len(taught), -1)))
            entropy = losses.cross_entropy(_mixed(log_gate, taught), batch.targets)
            terms += Terms(logit={"gate": entropy})
        else:
            log_gate = jnp.full(taught.shape[:2], -math.log(len(sources)), taught.dtype)
        if self.standardize:
            logits, taught = losses.standardize(logits), jax.vmap(losses.standardize, 1, 1)(taught)
        target = self.temperature * _mixed(log_gate, taught / self.temperature)
        kl = soft.divergence(
            logits, target, temperature=self.temperature, weight=self.distillation_weight
        )
        weights = {f"gate_{s.name}": jnp.exp(log_gate[:, m]) for m, s in enumerate(sources)}
        return terms + Terms(logit={"distillation": kl}, metrics=weights)


def _mixed(log_gate: jax.Array, taught: jax.Array) -> jax.Array:
    """The logarithm of the mean of softmax(logits), weighted by the gate, [batch, classes].

    Args:
      log_gate: [batch, teachers], logarithms of weights of sum 1.
      taught: logits [batch, teachers, classes].
    """
    return jax.nn.logsumexp(log_gate[:, :, None] + jax.nn.log_softmax(taught), axis=1)
