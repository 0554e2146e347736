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
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from afd_jax import losses
from afd_jax.errors import SettingError, one_of
from afd_jax.methods.method import Context
from afd_jax.methods.logits import LogitMethod
from afd_jax.networks.outputs import Outputs

_ROUNDS = 100  # of the search for the linear mix


def naive_target(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The logits of the network with the least cross-entropy, for each example.

    Args:
      logits: [networks, batch, classes].
      labels: [batch], integers.

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

    Arguments and return value as in `naive_target`; the label's own logit is 0.

    >>> logits = jnp.array([[[1.0, 0.0, 2.0]], [[5.0, 6.0, 0.0]]])
    >>> print(minlogit_target(logits, jnp.array([0])))
    [[ 0. -1. -5.]]
    """
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
    ridge = 1e-6 * jnp.trace(covariance) / count + jnp.finfo(covariance.dtype).tiny
    weights = jnp.linalg.solve(covariance + ridge * jnp.eye(count), jnp.ones(count))
    return jnp.einsum("k,kbc->bc", weights / jnp.sum(weights), logits)


TARGETS = {"naive": naive_target, "linear": linear_target, "minlogit": minlogit_target}


@dataclasses.dataclass(frozen=True)
class KDCL(LogitMethod):
    """Each network learns from a common target made of its own logits and its sources'.

    Attributes:
      target: "naive", "linear", "minlogit" or "general".
      temperature: T (3 is assumed).
      distillation_weight: of the divergence (1 is assumed); 0 leaves it out.
      own_augmentation: as in `Method`; the paper's networks each have their own.

    Raises:
      SettingError: if a number is out of range or the target unknown.
    """

    target: str = "minlogit"
    own_augmentation: bool = True

    teacher_count: ClassVar[tuple[int, int | None]] = (0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = [*TARGETS, "general"]
        if self.target not in choices:
            raise SettingError("method.target", self.target, one_of(self.target, choices))

    def target_logits(self, k: int, outputs: Sequence[Outputs], context: Context) -> list:
        """The one target of k and its sources, a constant though it holds k's own logits."""
        # In the order of the nodes, so that all who share a target share its computation.
        nodes = sorted({k, *self.graph.sources(k)})
        everyone = jax.lax.stop_gradient(jnp.stack([outputs[j].logits for j in nodes]))
        if self.target == "general":
            among = jnp.array(nodes)
            covariance = context.memory["error_covariance"][among[:, None], among[None]]
            return [general_target(everyone, covariance)]
        return [TARGETS[self.target](everyone, context.label)]

    @property
    def uses_heldout(self) -> bool:
        """For the weights of "general"."""
        return self.target == "general"

    def init_memory(self, examples: int, classes: int) -> Any:
        """For "general": covariance of the nodes' errors, which makes even weights at first."""
        return {"error_covariance": jnp.eye(self.graph.count)} if self.uses_heldout else {}

    def heldout_sums(self, logits: Sequence[jax.Array], label: jax.Array, mask: jax.Array) -> Any:
        """The products of errors, and the number of examples."""
        probabilities = jax.nn.softmax(jnp.stack(logits).astype(jnp.float32))
        one_hot = jax.nn.one_hot(label, probabilities.shape[-1], dtype=jnp.float32)
        errors = jnp.where(mask[None, :, None], probabilities - one_hot[None], 0)
        products = jnp.einsum("ibc,jbc->ij", errors, errors)
        return {"products": products, "count": jnp.sum(mask.astype(jnp.float32))}

    def update_memory(self, memory: Any, sums: Any) -> Any:
        """The covariance over the held-out set."""
        return {"error_covariance": sums["products"] / sums["count"]}
