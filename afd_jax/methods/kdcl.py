"""KDCL: Online Knowledge Distillation via Collaborative Learning.

Guo, Wang, Wu, Yu, Liang, Hu, Luo; CVPR 2020. All networks learn from one common soft target, which
is made of the logits z_i of them all, each of which sees an augmentation of its own:

  CE(y, softmax(z_k)) + weight * T² KL(softmax(z_target / T) || softmax(z_k / T))

  naive     the logits of the network with the least cross-entropy
  linear    the convex mix of all logits that has the least cross-entropy
  minlogit  per class the least of all logits, after taking off each network's logit of the label
  general   the mix of all logits whose weights, of sum 1, make the least error on held-out images

The first three targets are made for each example apart (assumed). The last one's weights are
C⁻¹1 / (1ᵀC⁻¹1), where C_ij is the mean product of the errors of networks i and j on the held-out
set, measured once an epoch; until then they are even. Assumed: an error is the predicted
probabilities minus the label's, weights may be below 0, and a millionth of C's mean diagonal is
added to its diagonal, for networks that err alike.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from afd_jax import losses
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.memory import Memory
from afd_jax.methods.method import Method, Terms, View

_ROUNDS = 100  # of the search for the linear mix


def naive_target(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The logits of the network with the least cross-entropy, for each example.

    Args:
      logits: [networks, batch, classes].
      labels: [batch], integers, or [batch, classes], probabilities.

    Returns:
      [batch, classes].

    >>> logits = jnp.array([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 3.0]]])
    >>> print(naive_target(logits, jnp.array([0, 1])))
    [[1. 0.]
     [0. 3.]]
    """
    entropy = jax.vmap(losses.cross_entropy, (0, None))(logits, labels)
    best = jnp.argmin(entropy, axis=0)
    return jnp.take_along_axis(logits, best[None, :, None], axis=0)[0]


def linear_target(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The convex mix of the networks' logits with the least cross-entropy, for each example.

    A convex problem, solved by 100 rounds of exponentiated gradient from the even mix; a round that
    does not help is taken back, and the rate of that example halved. Arguments and return value as
    in `naive_target`.
    """

    def mixed(scores: jax.Array) -> jax.Array:
        return jnp.einsum("kb,kbc->bc", jax.nn.softmax(scores, axis=0), logits)

    def of_weights(weights: jax.Array) -> jax.Array:
        mix = jnp.einsum("kb,kbc->bc", weights, logits)
        return jnp.sum(losses.cross_entropy(mix, labels))

    def improve(_: int, best: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        scores, rate, least = best
        new = scores - rate[None] * jax.grad(of_weights)(jax.nn.softmax(scores, axis=0))
        found = losses.cross_entropy(mixed(new), labels)
        helped = found <= least
        return (
            jnp.where(helped[None], new, scores),
            rate * jnp.where(helped, 1.2, 0.5).astype(rate.dtype),
            jnp.where(helped, found, least),
        )

    even = jnp.zeros(logits.shape[:2], logits.dtype)
    # No gradient is larger than the networks differ.
    differ = jnp.max(jnp.max(logits, axis=0) - jnp.min(logits, axis=0), axis=-1)
    first = losses.cross_entropy(mixed(even), labels)
    best = jax.lax.fori_loop(0, _ROUNDS, improve, (even, 1 / (differ + 1e-6), first))
    return mixed(best[0])


def minlogit_target(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Per class the least of the networks' logits, each without its logit of the label.

    Arguments and return value as in `naive_target`; the label's own logit is 0. Of a soft label,
    the mean logit of its classes is taken off.

    >>> logits = jnp.array([[[1.0, 0.0, 2.0]], [[5.0, 6.0, 0.0]]])
    >>> print(minlogit_target(logits, jnp.array([0])))
    [[ 0. -1. -5.]]
    """
    if jnp.issubdtype(labels.dtype, jnp.floating):
        own = jnp.sum(labels[None] * logits, axis=-1, keepdims=True)
    else:
        own = jnp.take_along_axis(logits, labels[None, :, None], axis=-1)
    return jnp.min(logits - own, axis=0)


def general_target(logits: jax.Array, covariance: jax.Array) -> jax.Array:
    """The mix of the networks' logits with the least error on held-out images.

    Args:
      logits: [networks, batch, classes].
      covariance: [networks, networks], mean products of the networks' errors.

    Returns:
      [batch, classes].

    >>> logits = jnp.array([[[1.0, 0.0]], [[0.0, 4.0]]])
    >>> print(general_target(logits, jnp.diag(jnp.array([1.0, 3.0]))).round(2))
    [[0.75 1.  ]]
    """
    count = len(covariance)
    size = jnp.trace(covariance)
    shape = covariance / jnp.where(size > 0, size, 1)  # without any error, all weigh the same
    weights = jnp.linalg.solve(shape + 1e-6 / count * jnp.eye(count), jnp.ones(count))
    return jnp.einsum("k,kbc->bc", weights / jnp.sum(weights), logits)


TARGETS = {"naive": naive_target, "linear": linear_target, "minlogit": minlogit_target}


@dataclasses.dataclass(frozen=True)
class KDCL(Memory, Method):
    """Each network learns from a common target made of its own logits and its sources'.

    Attributes:
      target: "naive", "linear", "minlogit" or "general".
      temperature: T (3 is assumed).
      distillation_weight: of the divergence (1 is assumed); 0 leaves it out.
      standardize: compare logits without their shift and scale (LSKD, `losses.standardize`).
    """

    teachers: ClassVar[tuple[int, int | None]] = (0, 0)

    temperature: float = soft.temperature(3.0)
    distillation_weight: float = soft.weight(1.0)
    standardize: bool = soft.standardize()
    target: str = options.choice("minlogit", (*TARGETS, "general"))

    def losses(self, own: View, sources: Sequence[View], batch: Batch) -> Terms:
        """Cross-entropy, and the divergence from the one target of a node and its sources."""
        terms = Terms(logit=soft.labels(own.logits, batch))
        if not sources or not self.distillation_weight:
            return terms
        # In one order, so that all who share a target share its computation. A constant, though
        # it holds the node's own logits.
        nodes = sorted([own, *sources], key=lambda node: node.name)
        everyone = jax.lax.stop_gradient(jnp.stack([node.logits for node in nodes]))
        if self.target == "general":
            names = [node.name for node in nodes]
            errors = batch.memory["error_covariance"]
            covariance = jnp.array([[errors[i][j] for j in names] for i in names])
            target = general_target(everyone, covariance)
        else:
            target = TARGETS[self.target](everyone, batch.targets)
        kl = soft.divergence(
            own.logits,
            target,
            temperature=self.temperature,
            weight=self.distillation_weight,
            standardize=self.standardize,
        )
        return terms + Terms(logit={"distillation": kl})

    @property
    def uses_heldout(self) -> bool:
        """For the weights of "general"."""
        return self.target == "general"

    def begin(self, students: Sequence[str], examples: int, classes: int) -> Any:
        """For "general": products of errors by pairs of names, which make even weights at first."""
        if not self.uses_heldout:
            return {}
        even = {i: {j: jnp.float32(i == j) for j in students} for i in students}
        return {"error_covariance": even}

    def heldout_sums(
        self, logits: Mapping[str, jax.Array], label: jax.Array, mask: jax.Array
    ) -> Any:
        """The products of errors, and the number of examples."""

        def error(z: jax.Array) -> jax.Array:
            one_hot = jax.nn.one_hot(label, z.shape[-1], dtype=jnp.float32)
            wrong = jax.nn.softmax(z.astype(jnp.float32)) - one_hot
            return jnp.where(mask[:, None], wrong, 0)

        errors = {name: error(z) for name, z in logits.items()}
        products = {i: {j: jnp.sum(a * b) for j, b in errors.items()} for i, a in errors.items()}
        return {"products": products, "count": jnp.sum(mask.astype(jnp.float32))}

    def after_epoch(self, memory: Any, sums: Any) -> Any:
        """The covariance over the held-out set."""
        return {"error_covariance": jax.tree.map(lambda x: x / sums["count"], sums["products"])}
