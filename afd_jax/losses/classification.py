"""Losses on class logits: cross-entropy and distillation; logits without shift and scale."""

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
      logits: [batch, classes], unnormalised log-probabilities; -inf for a class that is left out.
      labels: [batch], integers in [0, classes); inside jit, where they cannot be checked, one out
        of range makes its loss and gradient NaN. Or [batch, classes], floating point:
        probabilities, constants, at least 0 and of sum 1, which is not checked.
      label_smoothing: epsilon in [0, 1), the probability spread evenly over all classes that are
        not left out (Szegedy et al., "Rethinking the Inception Architecture", 2016).
      where: [batch] bool; False gives the example loss 0 and gradient 0.

    Returns:
      [batch], in nats, float32 (float64 for float64 logits); inf for the label of a class that is
      left out.

    Raises:
      ValueError: if shapes do not fit, the batch is empty, or a label or label_smoothing is out of
        range.
      TypeError: if logits are not floating point, or labels neither integers nor floating point.

    >>> import jax.numpy as jnp
    >>> logits = jnp.array([[0.0, 0.0], [2.0, 0.0]])
    >>> print(cross_entropy(logits, jnp.array([1, 0])).round(4))
    [0.6931 0.1269]
    >>> print(cross_entropy(logits, jnp.array([[0.5, 0.5], [1.0, 0.0]])).round(4))
    [0.6931 0.1269]
    """
    (logits,) = checks.as_floats(logits)
    labels = checks.as_labels(labels)
    checks.require_rows("logits", logits)
    soft = jnp.issubdtype(labels.dtype, jnp.floating)
    shape = logits.shape if soft else logits.shape[:-1]
    if labels.shape != shape:
        raise ValueError(f"{labels.dtype} labels need shape {shape}, got {labels.shape}")
    label_smoothing = checks.number("label_smoothing", label_smoothing, least=0, below=1)
    (logits,) = checks.keep(where, logits)
    (labels,) = checks.keep(where, labels)
    log_probs = jax.nn.log_softmax(logits)
    if soft:
        hit = _expected(jax.lax.stop_gradient(labels).astype(log_probs.dtype), log_probs)
    else:
        labels, factor = checks.hard_labels(labels, logits.shape[-1])
        hit = factor * jnp.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]
    if checks.known(label_smoothing) == 0:
        return reduce.drop(where, -hit)
    smooth = jnp.mean(log_probs, axis=-1, where=log_probs > -jnp.inf)
    return reduce.drop(where, -(1 - label_smoothing) * hit - label_smoothing * smooth)


def _expected(probs: jax.Array, log_probs: jax.Array) -> jax.Array:
    """Sum over classes of p log q, where nothing times log 0 is nothing, in the gradient, too."""
    nothing = (probs == 0) & (log_probs == -jnp.inf)
    return jnp.sum(probs * jnp.where(nothing, 0, log_probs), axis=-1)


def soft_cross_entropy(
    logits: jax.typing.ArrayLike,
    target_probs: jax.typing.ArrayLike,
    *,
    stop_target_gradient: bool = True,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Cross-entropy between target probabilities and softmax(logits), $-\sum_c q_c \log p_c$.

    Args:
      logits: [batch, classes], unnormalised log-probabilities; -inf for a class that is left out.
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
    checks.require_rows("logits", logits)
    checks.require_same_shape(logits=logits, target_probs=target_probs)
    logits, target_probs = checks.keep(where, logits, target_probs)
    if stop_target_gradient:
        target_probs = jax.lax.stop_gradient(target_probs)
    return -_expected(target_probs, jax.nn.log_softmax(logits))


def label_distribution(
    labels: jax.typing.ArrayLike, classes: int, *, correct: float | jax.Array
) -> jax.Array:
    r"""Probability `correct` for the label and an equal share of the rest for every other class.

    The virtual teacher of TF-KD (Yuan et al., "Revisiting Knowledge Distillation via Label
    Smoothing Regularization", CVPR 2020): $q_y = a$, $q_c = (1 - a) / (C - 1)$ else. Of a soft
    label, the mean over its classes.

    Args:
      labels: [batch], integers in [0, classes), as in `cross_entropy`; or [batch, classes],
        probabilities.
      classes: C, at least 2.
      correct: a in [0, 1].

    Returns:
      [batch, classes] float32, of sum 1.

    Raises:
      ValueError: if `classes`, `correct` or a label is out of range, or labels have another shape.
      TypeError: if labels are neither integers nor floating point.

    >>> import jax.numpy as jnp
    >>> print(label_distribution(jnp.array([1]), 3, correct=0.9).round(2))
    [[0.05 0.9  0.05]]
    """
    labels = checks.as_labels(labels)
    soft = jnp.issubdtype(labels.dtype, jnp.floating)
    if not soft and labels.ndim != 1:
        raise ValueError(f"labels need shape [batch], got {labels.shape}")
    if classes < 2:
        raise ValueError(f"classes={classes!r} must be at least 2")
    correct = checks.number("correct", correct, least=0, most=1)
    if soft and labels.shape[1:] != (classes,):
        wanted = (*labels.shape[:1], classes)
        raise ValueError(f"soft labels need shape {wanted}, got {labels.shape}")
    others = (1 - correct) / (classes - 1)
    if soft:
        (labels,) = checks.as_floats(labels)
        return (labels * correct + (1 - labels) * others).astype(jnp.float32)
    labels, factor = checks.hard_labels(labels, classes)
    one_hot = jax.nn.one_hot(labels, classes, dtype=jnp.float32)
    return (factor[:, None] * jnp.where(one_hot > 0, correct, others)).astype(jnp.float32)


def distillation_kl(
    logits: jax.typing.ArrayLike,
    target_logits: jax.typing.ArrayLike,
    *,
    temperature: float | jax.Array = 1.0,
    scale_by_t_squared: bool = True,
    stop_target_gradient: bool = True,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Distillation loss: divergence of the network's softened distribution from the target's.

    $T^2\,\mathrm{KL}(\mathrm{softmax}(z_t/T)\,\|\,\mathrm{softmax}(z/T))$
    (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; the second term of the
    logit loss of AFD, Chung et al., ICML 2020). T² keeps the gradient's size at any temperature.
    The target enters as log-probabilities, so the loss and its gradients are finite where a target
    probability underflows to 0.

    Args:
      logits: [batch, classes], of the network that learns; -inf for a class that is left out.
      target_logits: [batch, classes], of the network it learns from; likewise.
      temperature: T > 0; larger is softer. A number, or one per example, [batch].
      scale_by_t_squared: multiply by T². Deep mutual learning (T = 1) does not need it.
      stop_target_gradient: treat the target as a constant. With False, gradients reach it.
      where: [batch] bool; False gives the example loss 0 and gradient 0.

    Returns:
      [batch], in nats, at least 0 up to rounding, float32 (float64 for float64 input); inf where
      only the target has a class.

    Raises:
      ValueError: if shapes differ, the batch is empty, or a temperature is not positive.
      TypeError: if an input is not floating point.

    >>> import jax.numpy as jnp
    >>> z, target = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 1.0]])
    >>> print(f"{distillation_kl(z, target, temperature=3.0)[0]:.4f}")
    0.4954
    """
    logits, target_logits = checks.as_floats(logits, target_logits)
    checks.require_rows("logits", logits)
    checks.require_same_shape(logits=logits, target_logits=target_logits)
    temperature = checks.number("temperature", temperature, above=0, batch=len(logits))
    logits, target_logits = checks.keep(where, logits, target_logits)
    if stop_target_gradient:
        target_logits = jax.lax.stop_gradient(target_logits)
    log_probs, target_log_probs = (
        jax.nn.log_softmax(reduce.softened(z, temperature)) for z in (logits, target_logits)
    )
    kl = reduce.divergence(log_probs, target_log_probs)
    return reduce.drop(where, kl * reduce.squared(temperature) if scale_by_t_squared else kl)


def standardize(
    logits: jax.typing.ArrayLike,
    *,
    eps: float = 1e-7,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Logits without their shift and scale, $(z - \mathrm{mean}\,z)/(\epsilon + \mathrm{std}\,z)$.

    Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, as in the authors'
    code: mean and deviation are over the classes of an example, with C - 1 in the denominator. Two
    networks are then compared by the order and relative distances of their logits alone. Equal
    logits become zeros and get no gradient.

    Args:
      logits: [batch, classes], of at least two classes; -inf for a class that is left out, which
        stays so.
      eps: added to the deviation, above 0.
      where: [batch] bool; False gives the example zeros and gradient 0.

    Returns:
      [batch, classes], float32 (float64 for float64 logits).

    Raises:
      ValueError: for fewer than two classes, an empty batch, or an eps that is not positive.
      TypeError: if logits are not floating point.

    >>> import jax.numpy as jnp
    >>> print(standardize(jnp.array([[1.0, 2.0, 3.0], [10.0, 30.0, 50.0]])).round(4))
    [[-1.  0.  1.]
     [-1.  0.  1.]]
    """
    (logits,) = checks.as_floats(logits)
    checks.require_rows("logits", logits)
    eps = checks.number("eps", eps, above=0)
    if logits.shape[-1] < 2:
        raise ValueError(f"logits need at least 2 classes, got shape {logits.shape}")
    (logits,) = checks.keep(where, logits)
    there = logits != -jnp.inf
    logits = jnp.where(there, logits, 0)
    apart = reduce.centred(logits, there)
    square = jnp.sum(jnp.square(apart), axis=-1, keepdims=True)
    freedom = jnp.sum(there, axis=-1, keepdims=True) - 1
    # The root has no slope at 0.
    equal = square == 0
    variance = jnp.where(equal, 1, square) / jnp.maximum(freedom, 1).astype(square.dtype)
    deviation = jnp.where(equal, 0, jnp.sqrt(variance))
    return jnp.where(there, apart / (eps + deviation), -jnp.inf)
