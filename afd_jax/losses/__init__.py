"""Losses as pure functions on arrays: no Flax, no state, usable in any JAX code.

Every loss takes predictions first and targets second, returns one value per example in float32
(float64 for float64 input) whatever the input's precision, and masks examples by `where=`. Average
with `mean`. Measurements of a whole batch (`linear_cka`) return one value. Beside the losses stand
what they are made from: `standardize`, `label_distribution`, `ramp_up_weight`. What is in `__all__`
keeps its name and meaning between releases.

>>> import jax, jax.numpy as jnp
>>> from afd_jax import losses
>>> logits, teacher, labels = jnp.zeros((4, 10)), jnp.ones((4, 10)), jnp.arange(4)
>>> def loss(logits):
...     hard = losses.cross_entropy(logits, labels)
...     soft = losses.distillation_kl(logits, teacher, temperature=3.0)
...     return losses.mean(hard + soft)
>>> print(jax.grad(loss)(logits).shape)
(4, 10)
"""

from afd_jax.losses.adversarial import (
    bce_discriminator,
    bce_generator,
    hinge_discriminator,
    hinge_generator,
    least_squares_discriminator,
    least_squares_generator,
    wasserstein_discriminator,
    wasserstein_generator,
)
from afd_jax.losses.alignment import (
    attention_alignment,
    cosine_distance,
    l1_alignment,
    l2_alignment,
    normalized_l1_alignment,
    pyramid_alignment,
)
from afd_jax.losses.classification import (
    cross_entropy,
    distillation_kl,
    label_distribution,
    soft_cross_entropy,
    standardize,
)
from afd_jax.losses.correlation import correlation_distance
from afd_jax.losses.decoupled import other_classes_kl, target_class_kl
from afd_jax.losses.reduce import mean
from afd_jax.losses.relations import (
    probabilistic_transfer,
    relational_angle,
    relational_distance,
    similarity_preserving,
    supervised_contrastive,
)
from afd_jax.losses.similarity import cka_ratio, linear_cka, linear_hsic
from afd_jax.losses.weights import ramp_up_weight

__all__ = [
    "attention_alignment",
    "bce_discriminator",
    "bce_generator",
    "cka_ratio",
    "correlation_distance",
    "cosine_distance",
    "cross_entropy",
    "distillation_kl",
    "hinge_discriminator",
    "hinge_generator",
    "l1_alignment",
    "l2_alignment",
    "label_distribution",
    "least_squares_discriminator",
    "least_squares_generator",
    "linear_cka",
    "linear_hsic",
    "mean",
    "normalized_l1_alignment",
    "other_classes_kl",
    "probabilistic_transfer",
    "pyramid_alignment",
    "ramp_up_weight",
    "relational_angle",
    "relational_distance",
    "similarity_preserving",
    "soft_cross_entropy",
    "standardize",
    "supervised_contrastive",
    "target_class_kl",
    "wasserstein_discriminator",
    "wasserstein_generator",
]
