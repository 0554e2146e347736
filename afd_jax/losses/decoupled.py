"""The two parts of the distillation loss: on the label's class, and among all others."""

import jax
import jax.numpy as jnp

from afd_jax.losses import checks, reduce

_Parts = tuple[jax.Array, jax.Array]


def target_class_kl(
    logits: jax.typing.ArrayLike,
    target_logits: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    temperature: jax.typing.ArrayLike = 1.0,
    stop_target_gradient: bool = True,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Divergence of the probability of the label's class, against that of all other classes.

    $T^2\,\mathrm{KL}(b_t \,\|\, b)$ with $b = (p_y, 1 - p_y)$ and $p = \mathrm{softmax}(z/T)$: the
    target-class part of decoupled knowledge distillation (Zhao, Cui, Song, Qiu, Liang, "Decoupled
    Knowledge Distillation", CVPR 2022). With $q_y$ the target's probability of the label,

    $\mathrm{KL}(q\,\|\,p) = \mathrm{KL}(b_t\,\|\,b) + (1 - q_y)\,\mathrm{KL}(\hat q\,\|\,\hat p)$,

    whose last divergence is `other_classes_kl`. Both are computed from logarithms of sums, so they
    and their gradients are finite where $1 - p_y$ underflows, and for two classes.

    Args:
      logits: [batch, classes], of the network that learns; -inf for a class that is left out.
      target_logits: [batch, classes], of the network it learns from; likewise.
      labels: [batch], integers in [0, classes), as in `cross_entropy`.
      temperature: T > 0; larger is softer. A number, or one per example, [batch].
      stop_target_gradient: treat the target as a constant. With False, gradients reach it.
      where: [batch] bool; False gives the example loss 0 and gradient 0.

    Returns:
      [batch], in nats, at least 0 up to rounding, float32 (float64 for float64 input); inf where
      only the target has a class.

    Raises:
      ValueError: if shapes differ, the batch is empty, there are fewer than two classes, or a label
        or a temperature is out of range.
      TypeError: if logits are not floating point or labels no integers.

    >>> z, target = jnp.array([[1.0, 0.0, 0.0]]), jnp.array([[2.0, 1.0, -1.0]])
    >>> print(target_class_kl(z, target, jnp.array([0])).round(4))
    [0.0356]
    """
    own, target, factor = _pair(
        logits, target_logits, labels, temperature, stop_target_gradient, where
    )
    return reduce.drop(where, reduce.divergence(own[0], target[0]) * factor)


def other_classes_kl(
    logits: jax.typing.ArrayLike,
    target_logits: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    temperature: jax.typing.ArrayLike = 1.0,
    stop_target_gradient: bool = True,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Divergence of the probabilities among the classes that are not the label.

    $T^2\,\mathrm{KL}(\hat q\,\|\,\hat p)$, where $\hat p$ is the softmax of $z/T$ without the
    label's class: the non-target part of decoupled knowledge distillation. It does not depend on
    the label's logits, and is 0 for two classes. Arguments, return value and errors as in
    `target_class_kl`.

    >>> z, target = jnp.array([[9.0, 0.0, 0.0]]), jnp.array([[2.0, 1.0, -1.0]])
    >>> print(other_classes_kl(z, target, jnp.array([0])).round(4))
    [0.3278]
    """
    own, target, factor = _pair(
        logits, target_logits, labels, temperature, stop_target_gradient, where
    )
    return reduce.drop(where, reduce.divergence(own[1], target[1]) * factor)


def _pair(
    logits: jax.typing.ArrayLike,
    target_logits: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    temperature: jax.typing.ArrayLike,
    stop_target_gradient: bool,
    where: jax.typing.ArrayLike | None,
) -> tuple[_Parts, _Parts, jax.Array]:
    """Both networks' parts, and the factor of their divergences: T², NaN for an unknown label."""
    logits, target_logits = checks.as_floats(logits, target_logits)
    labels = checks.as_labels(labels)
    checks.require_rows("logits", logits)
    checks.require_same_shape(logits=logits, target_logits=target_logits)
    temperature = checks.number("temperature", temperature, above=0, batch=len(logits))
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers, got {labels.dtype}")
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"labels need shape {logits.shape[:-1]}, got {labels.shape}")
    if logits.shape[-1] < 2:
        raise ValueError(f"logits need at least 2 classes, got shape {logits.shape}")
    logits, target_logits, labels = checks.keep(where, logits, target_logits, labels)
    labels, known = checks.hard_labels(labels, logits.shape[-1])
    if stop_target_gradient:
        target_logits = jax.lax.stop_gradient(target_logits)
    own, target = (_parts(reduce.softened(z, temperature), labels) for z in (logits, target_logits))
    return own, target, known.astype(logits.dtype) * reduce.squared(temperature)


def _parts(logits: jax.Array, labels: jax.Array) -> _Parts:
    """Log-probabilities of the label and of all others together; and among the others.

    [batch, 2] and [batch, classes], whose label is left out (-inf).
    """
    classes = jnp.arange(logits.shape[-1], dtype=labels.dtype)
    other = (classes[None] != labels[:, None]) & (logits != -jnp.inf)
    some = jnp.any(other, axis=-1)  # else the logarithm of nothing has no gradient
    safe = jnp.where(some[:, None], other, True)
    finite = jnp.where(other, logits, 0)
    others = jax.nn.logsumexp(finite, axis=-1, where=safe)
    among = jnp.where(other, finite - others[:, None], -jnp.inf)
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    two = jnp.stack([own, jnp.where(some, others, -jnp.inf)], axis=-1)
    return jax.nn.log_softmax(two), among
