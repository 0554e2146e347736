"""What a network's probabilities say beside its accuracy: pure functions of NumPy arrays.

Labels are [examples] integers, probabilities [examples, classes]. Sums are in float64.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BINS = 15
_SMALLEST = float(np.finfo(np.float32).tiny)


def analyse(
    labels: Array,
    probabilities: Mapping[str, Array],
    class_names: Sequence[str],
    roles: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """All measurements of some networks on the same examples, as plain JSON.

    Args:
      labels: [examples] of 0 to classes - 1.
      probabilities: [examples, classes] by node.
      class_names: of all classes.
      roles: by node, "student", "twin" and others; all are students if None.

    Returns:
      "examples"; "class_names"; "nodes" by name, see `analyse_node`, with "ensemble" and "ensemble
      alone" for the averaged probabilities of several students and of their twins; "agreement" of
      each pair of nodes, [{"a", "b", "share", "kappa"}], without these ensembles.

    Raises:
      ValueError: if there are no examples, or shapes or labels do not fit.
    """
    _check(labels, probabilities, class_names)
    every = {**probabilities, **ensembles(probabilities, roles)}
    predicted = {name: np.argmax(p, axis=1) for name, p in probabilities.items()}
    return {
        "examples": len(labels),
        "class_names": list(class_names),
        "nodes": {name: analyse_node(labels, p, class_names) for name, p in every.items()},
        "agreement": [
            {"a": a, "b": b, "share": agreement(own, other), "kappa": cohen_kappa(own, other)}
            for (a, own), (b, other) in itertools.combinations(predicted.items(), 2)
        ],
    }


def analyse_node(labels: Array, probabilities: Array, class_names: Sequence[str]) -> dict[str, Any]:
    """The measurements of one network, as plain JSON.

    Returns:
      "accuracy" (a fraction); "top_5_accuracy" if there are more than five classes; "nll" in nats;
      "brier"; "ece"; "reliability", see `reliability`; "per_class" [{"name", "accuracy", "count"}],
      accuracy None for a class without examples; "confusion" [label][predicted], counts; "worst"
      [{"label", "predicted", "count"}], names, see `worst_confusions`.
    """
    bins = reliability(labels, probabilities)
    confusion = confusion_matrix(labels, np.argmax(probabilities, axis=1), len(class_names))
    found: dict[str, Any] = {"accuracy": accuracy(labels, probabilities)}
    if len(class_names) > 5:
        found["top_5_accuracy"] = top_k_accuracy(labels, probabilities, 5)
    return found | {
        "nll": negative_log_likelihood(labels, probabilities),
        "brier": brier_score(labels, probabilities),
        "ece": expected_calibration_error(bins),
        "reliability": bins,
        "per_class": [
            {"name": name, "accuracy": int(row[i]) / int(row.sum()) if row.any() else None}
            | {"count": int(row.sum())}
            for i, (name, row) in enumerate(zip(class_names, confusion, strict=True))
        ],
        "confusion": confusion.tolist(),
        "worst": [
            {"label": class_names[label], "predicted": class_names[predicted], "count": count}
            for label, predicted, count in worst_confusions(confusion)
        ],
    }


def ensembles(
    probabilities: Mapping[str, Array], roles: Mapping[str, str] | None = None
) -> dict[str, Array]:
    """Averaged probabilities of the students, "ensemble", and of their twins, "ensemble alone".

    Added up in the order and type of the arrays, as an evaluation during training does, so that
    ties fall alike. Each is there only if it averages two networks or more.
    """
    if roles is None:
        roles = dict.fromkeys(probabilities, "student")
    found = {}
    for role, name in (("student", "ensemble"), ("twin", "ensemble alone")):
        alike = [own for node, own in probabilities.items() if roles[node] == role]
        if len(alike) > 1:
            total = sum(alike[1:], start=alike[0])
            found[name] = total.astype(np.float64) / len(alike)
    return found


def accuracy(labels: Array, probabilities: Array) -> float:
    """Share of examples whose label has the largest probability; of equal ones the first counts."""
    return float(np.mean(np.argmax(probabilities, axis=1) == labels))


def top_k_accuracy(labels: Array, probabilities: Array, k: int) -> float:
    """Share of examples whose label is among the k largest; of equal ones the first count."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float(np.mean(np.any(order == labels[:, None], axis=1)))


def negative_log_likelihood(labels: Array, probabilities: Array) -> float:
    """Mean of -log of the label's probability, in nats.

    A probability of 0 counts as the smallest normal float32, so that one example adds 87 at most.
    """
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.mean(np.log(np.maximum(own, _SMALLEST))))


def brier_score(labels: Array, probabilities: Array) -> float:
    """Mean squared distance from the one-hot label, summed over classes: 0 to 2 (Brier, 1950)."""
    distance = probabilities.astype(np.float64)  # a copy
    distance[np.arange(len(labels)), labels] -= 1
    return float(np.mean(np.sum(distance**2, axis=1)))


def reliability(labels: Array, probabilities: Array, bins: int = BINS) -> list[dict[str, Any]]:
    """How often predictions are right, by the probability that they were given.

    Args:
      labels: [examples].
      probabilities: [examples, classes].
      bins: of equal width over (0, 1]; each holds its upper end.

    Returns:
      For each bin "low" and "high", its ends; "confidence" and "accuracy", means over its examples,
      None without any; "count".
    """
    edges = np.linspace(0, 1, bins + 1)
    confidence = np.max(probabilities, axis=1).astype(np.float64)
    right = np.argmax(probabilities, axis=1) == labels
    # Probabilities may exceed 1 by rounding.
    place = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, bins - 1)
    found = []
    for i in range(bins):
        own = place == i
        count = int(np.sum(own))
        found.append(
            {
                "low": float(edges[i]),
                "high": float(edges[i + 1]),
                "confidence": float(np.mean(confidence[own])) if count else None,
                "accuracy": float(np.mean(right[own])) if count else None,
                "count": count,
            }
        )
    return found


def expected_calibration_error(bins: Sequence[Mapping[str, Any]]) -> float:
    """Mean distance of confidence and accuracy over the bins, weighted by their examples.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3.

    Args:
      bins: as from `reliability`.
    """
    filled = [own for own in bins if own["count"]]
    gaps = sum(own["count"] * abs(own["accuracy"] - own["confidence"]) for own in filled)
    return float(gaps / sum(own["count"] for own in filled))


def confusion_matrix(labels: Array, predicted: Array, classes: int) -> Array:
    """Counts of examples, [label, predicted]."""
    pairs = np.asarray(labels, np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def worst_confusions(confusion: Array, most: int = 10) -> list[tuple[int, int, int]]:
    """The most frequent mistakes, as (label, predicted, count); equal counts in order of class.

    Args:
      confusion: as from `confusion_matrix`.
      most: so many at most; fewer if there are fewer kinds of mistake.
    """
    wrong = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    places = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(int(i), int(j), int(wrong[i, j])) for i, j in places if wrong[i, j]]


def agreement(own: Array, other: Array) -> float:
    """Share of examples [examples] for which two networks predict the same class."""
    return float(np.mean(own == other))


def cohen_kappa(own: Array, other: Array) -> float | None:
    """Agreement beyond that of chance, 1 for all and 0 for chance (Cohen, 1960).

    None where both networks predict one and the same class for everything.
    """
    classes = int(max(own.max(), other.max())) + 1
    shares = [np.bincount(predicted, minlength=classes) / len(own) for predicted in (own, other)]
    chance = float(np.dot(*shares))
    return None if chance == 1 else (agreement(own, other) - chance) / (1 - chance)


def _check(labels: Array, probabilities: Mapping[str, Array], class_names: Sequence[str]) -> None:
    count, classes = len(labels), len(class_names)
    if not count:
        raise ValueError("labels: there must be at least one example")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be whole numbers from 0 to {classes - 1}")
    for name, own in probabilities.items():
        if own.shape != (count, classes):
            words = f"must be [{count}, {classes}], [examples, classes], not {list(own.shape)}"
            raise ValueError(f"probabilities of {name} {words}")
