"""What methods on logits share: labels, softened predictions, weights that rise."""

from typing import Protocol

import jax
import jax.numpy as jnp

from afd_jax import losses
from afd_jax.methods import options
from afd_jax.methods.batch import Batch
from afd_jax.methods.method import Terms, View


def temperature(default: float) -> float:
    """The option T of a distillation loss."""
    return options.number(default, above=0, most=1e4)


def weight(default: float) -> float:
    """The option of a loss's weight; 0 leaves the loss out."""
    return options.number(default, least=0)


def standardize() -> bool:
    """The option to compare logits without their shift and scale (LSKD)."""
    return options.flag(False)


def labels(logits: jax.Array, batch: Batch, factor: float = 1.0) -> dict[str, jax.Array]:
    """The weighted cross-entropy, as a method's logit losses."""
    entropy = losses.cross_entropy(logits, batch.targets)
    return {"cross_entropy": entropy if factor == 1 else factor * entropy}


def divergence(
    logits: jax.Array,
    target: jax.Array,
    *,
    temperature: float | jax.Array,
    weight: float = 1.0,
    standardize: bool = False,
    constant: bool = True,
) -> jax.Array:
    """The weighted distillation loss with T², [batch]; perhaps of standardised logits."""
    if standardize:
        logits, target = losses.standardize(logits), losses.standardize(target)
    return weight * losses.distillation_kl(
        logits, target, temperature=temperature, stop_target_gradient=constant
    )


class Weighs(Protocol):
    """A method whose students' labels have a weight."""

    @property
    def label_weight(self) -> float:
        """Of the cross-entropy of a node that is taught."""


def taught(method: Weighs, own: View, batch: Batch) -> Terms:
    """The cross-entropy, weighted for a node that has sources."""
    return Terms(logit=labels(own.logits, batch, method.label_weight if own.sources else 1.0))


class Softens(Protocol):
    """A method with the usual options of a distillation loss."""

    @property
    def temperature(self) -> float:
        """T."""

    @property
    def distillation_weight(self) -> float:
        """Of the loss; 0 leaves it out."""

    @property
    def standardize(self) -> bool:
        """Whether logits are standardised before they are softened."""


def predictions(method: Softens, own: View, source: View) -> Terms:
    """What an edge carries that teaches softened predictions."""
    if not method.distillation_weight:
        return Terms()
    kl = divergence(
        own.logits,
        source.logits,
        temperature=method.temperature,
        weight=method.distillation_weight,
        standardize=method.standardize,
    )
    return Terms(logit={"distillation": kl})


class Rises(Softens, Protocol):
    """The same with a weight that rises over a share of the run."""

    @property
    def ramp_up(self) -> float:
        """That share; 0 for none."""


def rising(
    method: Rises,
    own: View,
    target: jax.Array,
    batch: Batch,
    *,
    name: str = "distillation",
    constant: bool = True,
) -> Terms:
    """The divergence from a target [batch, classes], with the weight at this time of the run."""
    if not method.distillation_weight:
        return Terms()
    kl = divergence(
        own.logits,
        target,
        temperature=method.temperature,
        weight=method.distillation_weight,
        standardize=method.standardize,
        constant=constant,
    )
    return Terms(logit={name: ramp(batch, method.ramp_up) * kl})


def ramp(batch: Batch, length: float) -> jax.Array | float:
    """The factor of a loss that rises over a share of the run; 1 for a length of 0."""
    return losses.ramp_up_weight(batch.progress, length=length) if length else 1.0


def epochs_ramp(batch: Batch, epochs: float) -> jax.Array | float:
    """The factor of a loss that rises linearly from 0 over so many epochs; 1 for none."""
    return jnp.minimum(batch.progress * batch.epochs / epochs, 1) if epochs else 1.0
