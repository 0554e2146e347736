"""Losses on class logits: cross-entropy and distillation."""

import jax
import jax.numpy as jnp

from afd_jax.losses import checks, reduce


def cross_entropy(
    logits: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    label_smoothing: float = 0.0,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Cross-entropy between class labels and softmax(logits).

    $-\sum_c q_c \log p_c$ with $q = (1-\epsilon)\,\mathrm{onehot}(y) + \epsilon / C$. A soft label,
    as of mixed images, takes the place of onehot(y).

    Args:
      logits: [batch, classes], unnormalised log-probabilities.
      labels: [batch], integers in [0, classes). A label of `classes` or more gives NaN; one below
        0 counts from the end, as an index does. Or [batch, classes], floating point: probabilities,
        constants, at least 0 and of sum 1, which is not checked.
      label_smoothing: epsilon in [0, 1), the probability spread evenly over all classes
        (Szegedy et al., "Rethinking the Inception Architecture", 2016).
      where: [batch] bool; False gives the example loss 0 and gradient 0.

    Returns:
      [batch], in nats, float32 (float64 for float64 logits).

    Raises:
      ValueError: if shapes do not fit or label_smoothing is outside [0, 1).
      TypeError: if logits are not floating point, or labels neither integers nor floating point.

    >>> import jax.numpy as jnp
    >>> logits = jnp.array([[0.0, 0.0], [2.0, 0.0]])
    >>> print(cross_entropy(logits, jnp.array([1, 0])).round(4))
    [0.6931 0.1269]
    >>> print(cross_entropy(logits, jnp.array([[0.5, 0.5], [1.0, 0.0]])).round(4))
    [0.6931 0.1269]
    """
    (logits,) = checks.as_floats(logits)
    labels = jnp.asarray(labels)
    checks.require_rank("logits", logits, 2)
    soft = jnp.issubdtype(labels.dtype, jnp.floating)
    if not soft and not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers or probabilities, got {labels.dtype}")
    shape = logits.shape if soft else logits.shape[:-1]
    if labels.shape != shape:
        raise ValueError(f"{labels.dtype} labels need shape {shape}, got {labels.shape}")
    if isinstance(label_smoothing, int | float) and not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing={label_smoothing!r} must be in [0, 1)")
    (logits,) = checks.keep(where, logits)
    (labels,) = checks.keep(where, labels)
    log_probs = jax.nn.log_softmax(logits)
    if soft:
        probs = jax.lax.stop_gradient(labels).astype(log_probs.dtype)
        hit = jnp.sum(probs * log_probs, axis=-1)
    else:
        hit = jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]
    smooth = jnp.mean(log_probs, axis=-1)
    return reduce.drop(where, -(1 - label_smoothing) * hit - label_smoothing * smooth)


def soft_cross_entropy(
    logits: jax.typing.ArrayLike,
    target_probs: jax.typing.ArrayLike,
    *,
    stop_target_gradient: bool = True,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Cross-entropy between target probabilities and softmax(logits), $-\sum_c q_c \log p_c$.

    Args:
      logits: [batch, classes], unnormalised log-probabilities.
      target_probs: [batch, classes], at least 0 and of sum 1, which is not checked.
      stop_target_gradient: treat the target as a constant. With False, gradients reach it.
      where: [batch] bool; False gives the example loss 0 and gradient 0.

    Returns:
      [batch], in nats, float32 (float64 for float64 input).

    Raises:
      ValueError: if shapes differ. TypeError: if an input is not floating point.

    >>> import jax.numpy as jnp
    >>> print(soft_cross_entropy(jnp.zeros((1, 2)), jnp.array([[0.3, 0.7]])).round(4))
    [0.6931]
    """
    logits, target_probs = checks.as_floats(logits, target_probs)
    checks.require_rank("logits", logits, 2)
    checks.require_same_shape(logits=logits, target_probs=target_probs)
    logits, target_probs = checks.keep(where, logits, target_probs)
    if stop_target_gradient:
        target_probs = jax.lax.stop_gradient(target_probs)
    return -jnp.sum(target_probs * jax.nn.log_softmax(logits), axis=-1)


def label_distribution(
    labels: jax.typing.ArrayLike, classes: int, *, correct: float | jax.Array
) -> jax.Array:
    r"""Probability `correct` for the label and an equal share of the rest for every other class.

    The virtual teacher of TF-KD (Yuan et al., "Revisiting Knowledge Distillation via Label
    Smoothing Regularization", CVPR 2020): $q_y = a$, $q_c = (1 - a) / (C - 1)$ else. Of a soft
    label, the mean over its classes.

    Args:
      labels: [batch], integers in [0, classes); or [batch, classes], probabilities.
      classes: C, at least 2.
      correct: a in [0, 1].

    Returns:
      [batch, classes] float32, of sum 1.

    Raises:
      ValueError: if `classes` or `correct` is out of range.
      TypeError: if labels are neither integers nor floating point.

    >>> import jax.numpy as jnp
    >>> print(label_distribution(jnp.array([1]), 3, correct=0.9).round(2))
    [[0.05 0.9  0.05]]
    """
    labels = jnp.asarray(labels)
    soft = jnp.issubdtype(labels.dtype, jnp.floating)
    if not soft and not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers or probabilities, got {labels.dtype}")
    if classes < 2:
        raise ValueError(f"classes={classes!r} must be at least 2")
    if isinstance(correct, int | float) and not 0 <= correct <= 1:
        raise ValueError(f"correct={correct!r} must be in [0, 1]")
    if soft and labels.shape[1:] != (classes,):
        wanted = (*labels.shape[:1], classes)
        raise ValueError(f"soft labels need shape {wanted}, got {labels.shape}")
    others = (1 - correct) / (classes - 1)
    if soft:
        return (labels * correct + (1 - labels) * others).astype(jnp.float32)
    one_hot = jax.nn.one_hot(labels, classes, dtype=jnp.float32)
    return jnp.where(one_hot > 0, correct, others).astype(jnp.float32)


def distillation_kl(
    logits: jax.typing.ArrayLike,
    target_logits: jax.typing.ArrayLike,
    *,
    temperature: float | jax.Array = 1.0,
    scale_by_t_squared: bool = True,
    stop_target_gradient: bool = True,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Distillation loss: divergence of the own softened distribution from the target's.

    $T^2\,\mathrm{KL}(\mathrm{softmax}(z_t/T)\,\|\,\mathrm{softmax}(z/T))$
    (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; the second term of the
    logit loss of AFD, Chung et al., ICML 2020). T² keeps the gradient's size at any temperature.
    The target enters as log-probabilities, so the loss and its gradients are finite where a target
    probability underflows to 0.

    Args:
      logits: [batch, classes], of the network that learns.
      target_logits: [batch, classes], of the network it learns from.
      temperature: T > 0; larger is softer.
      scale_by_t_squared: multiply by T². Deep mutual learning (T = 1) does not need it.
      stop_target_gradient: treat the target as a constant. With False, gradients reach it.
      where: [batch] bool; False gives the example loss 0 and gradient 0.

    Returns:
      [batch], in nats, at least 0 up to rounding, float32 (float64 for float64 input).

    Raises:
      ValueError: if shapes differ or temperature is not positive.
      TypeError: if an input is not floating point.

    >>> import jax.numpy as jnp
    >>> z, target = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])
    >>> print(f"{distillation_kl(z, target, temperature=3.0)[0]:.4f}")
    0.4954
    """
    logits, target_logits = checks.as_floats(logits, target_logits)
    checks.require_rank("logits", logits, 2)
    checks.require_same_shape(logits=logits, target_logits=target_logits)
    checks.require_positive("temperature", temperature)
    logits, target_logits = checks.keep(where, logits, target_logits)
    if stop_target_gradient:
        target_logits = jax.lax.stop_gradient(target_logits)
    log_probs = jax.nn.log_softmax(logits / temperature)
    target_log_probs = jax.nn.log_softmax(target_logits / temperature)
    kl = jnp.sum(jnp.exp(target_log_probs) * (target_log_probs - log_probs), axis=-1)
    return reduce.drop(where, kl * temperature**2 if scale_by_t_squared else kl)
