"""Losses on how the examples of a batch relate to each other in two networks.

Each example is compared with all of the batch, so the mean over the batch is the paper's loss. The
sizes of the two networks' features may differ. Over several devices, give the examples of them all
and the `rows` that are a device's own.
"""

import jax
import jax.numpy as jnp

from afd_jax.losses import checks
from afd_jax.losses.vectors import direction


def _pair(
    features: jax.typing.ArrayLike,
    target_features: jax.typing.ArrayLike,
    rows: jax.typing.ArrayLike | None,
    stop_target_gradient: bool,
    where: jax.typing.ArrayLike | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """Both flattened; the rows; 1 for examples that count; of each row, 1 if it counts.

    A traced row cannot be checked. One that is out of range would silently give another example's
    value; it gives NaN.
    """
    features, target_features = checks.as_floats(features, target_features)
    flat = []
    for name, own in (("features", features), ("target_features", target_features)):
        checks.require_rank(name, own, 2)
        (own,) = checks.keep(where, own)
        flat.append(own.reshape(own.shape[0], -1))
    own, other = flat
    checks.require_same_shape(features=own[:, 0], target_features=other[:, 0])
    kept = jnp.ones(len(own), bool) if where is None else jnp.asarray(where)
    every = jnp.arange(len(own)) if rows is None else jnp.asarray(rows)
    if not jnp.issubdtype(every.dtype, jnp.integer) or every.ndim != 1:
        raise TypeError(f"rows must be integers [any], got {every.dtype} of shape {every.shape}")
    if rows is not None and (at_hand := checks.known(rows)) is not None:
        for wrong in at_hand[(at_hand < 0) | (at_hand >= len(own))][:1]:
            raise ValueError(f"rows must be in [0, {len(own)}), got {wrong}")
    other = jax.lax.stop_gradient(other) if stop_target_gradient else other
    there, kept = (every >= 0) & (every < len(own)), kept.astype(own.dtype)
    every = jnp.where(there, every, 0)
    return own, other, every, kept, jnp.where(there, kept[every], jnp.nan)


def _mean(values: jax.Array, kept: jax.Array) -> jax.Array:
    """Over the last axis, [batch], of those that count."""
    return values @ kept / jnp.maximum(jnp.sum(kept), 1)


def similarity_preserving(
    features: jax.typing.ArrayLike,
    target_features: jax.typing.ArrayLike,
    *,
    rows: jax.typing.ArrayLike | None = None,
    stop_target_gradient: bool = True,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Mean squared difference of two networks' similarities, $\frac1n \sum_j (G_{ij} - H_{ij})^2$.

    Of the flattened features a and b, with $G_i = A_i / |A_i|_2$ for the rows of $A = a a^\top$,
    and H likewise of b (Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019,
    eqs. 2-4).

    Args:
      features: [batch, ...], of the network that learns.
      target_features: [batch, ...], of the network it learns from.
      rows: [any], integers: the examples whose values are wanted; all if None.
      stop_target_gradient: treat the target as a constant. With False, gradients reach it.
      where: [batch] bool; False leaves the example out: its loss is 0, and it is compared with
        no other.

    Returns:
      [batch], or one for each of `rows`; at least 0, float32 (float64 for float64 input).

    Raises:
      ValueError: if the batches differ. TypeError: if an input is not floating point.

    >>> import jax.numpy as jnp
    >>> a, b = jnp.eye(2), jnp.array([[1.0, 0.0], [1.0, 0.0]])
    >>> print(similarity_preserving(a, b).round(4))
    [0.2929 0.2929]
    """
    own, other, rows, kept, counts = _pair(
        features, target_features, rows, stop_target_gradient, where
    )
    a, b = (direction(x[rows] @ x.T) for x in (own, other))
    return counts * _mean(jnp.square(a - b), kept)


def relational_distance(
    features: jax.typing.ArrayLike,
    target_features: jax.typing.ArrayLike,
    *,
    rows: jax.typing.ArrayLike | None = None,
    stop_target_gradient: bool = True,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""How two networks' distances of examples differ, $\frac1n \sum_j \ell(d_{ij} - e_{ij})$.

    The distances of each network are divided by their mean over all pairs of two examples; $\ell$
    is $x^2/2$ below 1 and $|x| - 1/2$ above (Park et al., "Relational Knowledge Distillation", CVPR
    2019, eqs. 5-8). The scale of either network's features does not matter, as long as squared
    distances stay above 1e-12, which is the least that counts, and below what float32 can hold.
    Arguments, return value and errors as in `similarity_preserving`.

    >>> import jax.numpy as jnp
    >>> a, b = jnp.array([[0.0], [1.0], [2.0]]), jnp.array([[0.0], [1.0], [5.0]])
    >>> print(relational_distance(a, 3 * a).round(4))
    [0. 0. 0.]
    >>> print(relational_distance(a, b).round(4))
    [0.0337 0.0675 0.0338]
    """
    own, other, rows, kept, counts = _pair(
        features, target_features, rows, stop_target_gradient, where
    )
    a, b = (_distances(x, kept)[rows] for x in (own, other))
    return counts * _mean(_huber(a - b), kept)


def relational_angle(
    features: jax.typing.ArrayLike,
    target_features: jax.typing.ArrayLike,
    *,
    rows: jax.typing.ArrayLike | None = None,
    stop_target_gradient: bool = True,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""How two networks' angles differ, $\frac1{n^2} \sum_{jk} \ell(\cos_{ijk} - \cos'_{ijk})$.

    The angle at example i between the directions to j and k; $\ell$ as in `relational_distance`
    (Park et al., CVPR 2019, eqs. 9-11). It takes memory for [rows, batch, batch] values. Arguments,
    return value and errors as in `similarity_preserving`.

    >>> import jax.numpy as jnp
    >>> a = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> print(relational_angle(a, a[:, :1]).round(4))
    [0.0556 0.0095 0.1111]
    """
    own, other, rows, kept, counts = _pair(
        features, target_features, rows, stop_target_gradient, where
    )
    ways = [direction(x[None] - x[rows][:, None]) for x in (own, other)]
    a, b = (jnp.einsum("ijd,ikd->ijk", way, way) for way in ways)
    return counts * _mean(_mean(_huber(a - b), kept), kept)


def probabilistic_transfer(
    features: jax.typing.ArrayLike,
    target_features: jax.typing.ArrayLike,
    *,
    rows: jax.typing.ArrayLike | None = None,
    stop_target_gradient: bool = True,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Divergence of two networks' neighbourhoods, $\frac1n \sum_j q_{ij} \log (q_{ij} / p_{ij})$.

    $p_{ij}$ is $(1 + \cos(a_i, a_j)) / 2$ divided by its sum over j, and q likewise of the target
    (Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV
    2018, eqs. 4-6; the mean over j, and 1e-7 added to p and q inside the logarithm, are their
    code's). Arguments, return value and errors as in `similarity_preserving`.

    >>> import jax.numpy as jnp
    >>> a, b = jnp.eye(2), jnp.array([[1.0, 0.0], [1.0, 0.0]])
    >>> print(probabilistic_transfer(a, b).round(4))
    [0.0294 0.0294]
    """
    own, other, rows, kept, counts = _pair(
        features, target_features, rows, stop_target_gradient, where
    )
    p, q = (_neighbours(direction(x), rows, kept) for x in (own, other))
    return counts * _mean(q * (jnp.log(q + 1e-7) - jnp.log(p + 1e-7)), kept)


def supervised_contrastive(
    embeddings: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    *,
    others: jax.typing.ArrayLike | None = None,
    temperature: float = 0.1,
    rows: jax.typing.ArrayLike | None = None,
    where: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    r"""Supervised contrastive loss: how unlike its class an example is.

    $$-\frac{1}{|P_i|} \sum_{p \in P_i} \log \frac{e^{s_{ip}}}{\sum_{j \ne i} e^{s_{ij}}}$$

    $s_{ij}$ is the product of embedding i with embedding j of the others, over the temperature, and
    $P_i$ are the other examples of i's class (Khosla et al., NeurIPS 2020, eq. 2, without its
    factor; between two networks as in MCL, Yang et al., AAAI 2022). An example is never compared
    with itself, and one that is alone in its class has a loss of 0.

    Args:
      embeddings: [batch, size], of length 1, which is not checked.
      labels: [batch], integers.
      others: [batch, size], what each is compared with; the embeddings themselves if None. No
        gradient is stopped.
      temperature: of the similarities.
      rows: [any], integers: the examples whose values are wanted; all if None.
      where: [batch] bool; False leaves the example out.

    Returns:
      [batch], or one for each of `rows`; at least 0, float32 (float64 for float64 input).

    Raises:
      ValueError: if shapes do not fit, or the temperature is not above 0. TypeError: if embeddings
        are not floating point, or labels no integers.

    >>> import jax.numpy as jnp
    >>> print(supervised_contrastive(jnp.eye(3), jnp.array([0, 0, 1])).round(4))
    [0.6931 0.6931 0.    ]
    """
    temperature = checks.number("temperature", temperature, above=0)
    own, other, every, kept, counts = _pair(
        embeddings, embeddings if others is None else others, rows, False, where
    )
    checks.require_same_shape(embeddings=own, others=other)
    labels = checks.as_labels(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.shape != own.shape[:1]:
        wanted = f"labels must be integers of shape {own.shape[:1]}"
        error = ValueError if jnp.issubdtype(labels.dtype, jnp.integer) else TypeError
        raise error(f"{wanted}, got {labels.dtype} of shape {labels.shape}")
    itself = every[:, None] == jnp.arange(len(own))[None]
    partners = (kept[None] > 0) & ~itself
    alike = jnp.where(partners, own[every] @ other.T / temperature, -jnp.inf)
    some = jnp.any(partners, axis=1, keepdims=True)
    log_probs = jax.nn.log_softmax(jnp.where(some, alike, 0), axis=1)
    same = partners & (labels[every][:, None] == labels[None])
    count = jnp.sum(same.astype(own.dtype), axis=1)
    total = jnp.sum(jnp.where(same, -log_probs, 0), axis=1)
    return counts * total / jnp.maximum(count, 1)


def _distances(x: jax.Array, kept: jax.Array) -> jax.Array:
    """Of each two examples, [batch, batch], over their mean; 0 of an example from itself."""
    x -= (kept @ x / jnp.maximum(jnp.sum(kept), 1))[None]  # what all share would cancel badly
    squares = jnp.sum(jnp.square(x), axis=1)
    between = squares[:, None] + squares[None] - 2 * jnp.matmul(x, x.T, precision="highest")
    others = kept[:, None] * kept[None] * (1 - jnp.eye(len(x), dtype=x.dtype))
    distances = jnp.where(others > 0, jnp.sqrt(jnp.maximum(between, 1e-12)), 0)
    mean = jnp.sum(distances) / jnp.maximum(jnp.sum(others), 1)
    return distances / jnp.where(mean > 0, mean, 1)


def _huber(x: jax.Array) -> jax.Array:
    size = jnp.abs(x)
    return jnp.where(size < 1, jnp.square(x) / 2, size - 0.5)


def _neighbours(x: jax.Array, rows: jax.Array, kept: jax.Array) -> jax.Array:
    """[rows, batch], of sum 1 over those that count."""
    alike = jnp.maximum(1 + x[rows] @ x.T, 0) / 2 * kept[None]  # a cosine may round to below -1
    total = jnp.sum(alike, axis=1, keepdims=True)
    return alike / jnp.where(total > 0, total, 1)
