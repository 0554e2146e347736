"""Measurements of probabilities against scikit-learn, other forms, and cases made by hand."""

import json

import numpy as np
import pytest
from sklearn import metrics

from afd_jax.reports import analysis

NAMES = [f"class {i}" for i in range(7)]
# Labels 0, 1, 2, 1; predictions 0, 1, 1, 1.
LABELS = np.array([0, 1, 2, 1], np.int32)
BY_HAND = np.array(
    [[0.7, 0.2, 0.1], [0.1, 0.9, 0.0], [0.2, 0.6, 0.2], [0.05, 0.9, 0.05]], np.float32
)


@pytest.fixture(scope="module")
def drawn():
    """Labels of 500 examples, one class missing, and the probabilities of three networks."""
    rng = np.random.default_rng(0)
    labels = rng.integers(6, size=500).astype(np.int32)
    networks = {}
    for name in ("a", "b", "a alone"):
        logits = rng.normal(size=(500, 7)) + 2 * (np.arange(7) == labels[:, None])
        p = np.exp(2 * logits)
        networks[name] = (p / p.sum(1, keepdims=True)).astype(np.float32)
    return labels, networks


def test_a_case_made_by_hand():
    found = analysis.analyse_node(LABELS, BY_HAND, ["x", "y", "z"])
    assert found["accuracy"] == 0.75
    assert "top_5_accuracy" not in found
    assert found["confusion"] == [[1, 0, 0], [0, 2, 0], [0, 1, 0]]
    assert found["worst"] == [{"label": "z", "predicted": "y", "count": 1}]
    assert found["per_class"] == [
        {"name": "x", "accuracy": 1.0, "count": 1},
        {"name": "y", "accuracy": 1.0, "count": 2},
        {"name": "z", "accuracy": 0.0, "count": 1},
    ]
    np.testing.assert_allclose(found["nll"], -np.log([0.7, 0.9, 0.2, 0.9]).mean(), rtol=1e-6)
    squares = [0.09 + 0.04 + 0.01, 0.01 + 0.01, 0.04 + 0.36 + 0.64, 2 * 0.0025 + 0.01]
    np.testing.assert_allclose(found["brier"], np.mean(squares), rtol=1e-6)
    # 0.7 and 0.6 (in float32 above 9/15) stand alone in their bins; the two of 0.9 share one.
    np.testing.assert_allclose(found["ece"], (0.3 + 0.6 + 2 * 0.1) / 4, rtol=1e-6)
    filled = {i: own for i, own in enumerate(found["reliability"]) if own["count"]}
    assert {i: own["count"] for i, own in filled.items()} == {9: 1, 10: 1, 13: 2}
    assert found["reliability"][0] == {
        "low": 0.0,
        "high": 1 / 15,
        "confidence": None,
        "accuracy": None,
        "count": 0,
    }


def test_a_bin_holds_its_upper_end():
    probabilities = np.array([[0.25, 0.75, 0.0], [0.5, 0.25, 0.25], [1.0, 0, 0], [1 + 1e-7, 0, 0]])
    bins = analysis.reliability(np.array([1, 1, 0, 0]), probabilities, bins=4)
    assert [own["count"] for own in bins] == [0, 1, 1, 2]
    assert [own["accuracy"] for own in bins] == [None, 0.0, 1.0, 1.0]
    np.testing.assert_allclose(
        analysis.expected_calibration_error(bins), (0.5 + 0.25) / 4, rtol=1e-6
    )


def calibration_error(labels, probabilities, bins):
    """Example by example, without an array of bins."""
    held = {}
    for label, p in zip(labels, probabilities.astype(np.float64), strict=True):
        predicted = max(range(len(p)), key=lambda c: p[c])
        number = next(m for m in range(1, bins + 1) if p[predicted] <= m / bins or m == bins)
        held.setdefault(number, []).append((p[predicted], predicted == label))
    total = 0.0
    for own in held.values():
        confidence = sum(c for c, _ in own) / len(own)
        total += len(own) * abs(sum(right for _, right in own) / len(own) - confidence)
    return total / len(labels)


@pytest.mark.parametrize("bins", [15, 7])
def test_calibration_is_that_of_a_loop(drawn, bins):
    labels, networks = drawn
    for p in networks.values():
        found = analysis.expected_calibration_error(analysis.reliability(labels, p, bins))
        np.testing.assert_allclose(found, calibration_error(labels, p, bins), rtol=1e-9)
        assert found > 0.01


def test_scikit_learn_measures_the_same(drawn):
    labels, networks = drawn
    found = analysis.analyse(labels, networks, NAMES)
    assert found["examples"] == 500 and found["class_names"] == NAMES
    every = range(7)
    for name, p in networks.items():
        node, predicted = found["nodes"][name], np.argmax(p, 1)
        assert node["accuracy"] == metrics.accuracy_score(labels, predicted)
        top5 = metrics.top_k_accuracy_score(labels, p, k=5, labels=every)
        np.testing.assert_allclose(node["top_5_accuracy"], top5, rtol=1e-12)
        assert node["top_5_accuracy"] < 1
        exact = p.astype(np.float64)
        exact /= exact.sum(1, keepdims=True)  # scikit-learn asks for sums of 1
        log_loss = metrics.log_loss(labels, exact, labels=every)
        np.testing.assert_allclose(node["nll"], log_loss, rtol=1e-6)
        matrix = metrics.confusion_matrix(labels, predicted, labels=every)
        np.testing.assert_array_equal(node["confusion"], matrix)
        each = metrics.recall_score(
            labels, predicted, labels=range(6), average=None, zero_division=np.nan
        )
        np.testing.assert_allclose([own["accuracy"] for own in node["per_class"][:6]], each)
        assert node["per_class"][6] == {"name": "class 6", "accuracy": None, "count": 0}
        one_hot = np.eye(7)[labels]
        brier = sum(metrics.brier_score_loss(one_hot[:, c], exact[:, c]) for c in every)
        np.testing.assert_allclose(node["brier"], brier, rtol=1e-6)
    pairs = [(own["a"], own["b"]) for own in found["agreement"]]
    assert pairs == [("a", "b"), ("a", "a alone"), ("b", "a alone")]
    for own in found["agreement"]:
        a, b = (np.argmax(networks[own[side]], 1) for side in "ab")
        assert own["share"] == metrics.accuracy_score(a, b)
        np.testing.assert_allclose(own["kappa"], metrics.cohen_kappa_score(a, b))
    json.dumps(found, allow_nan=False)


def test_the_worst_confusions_come_first():
    confusion = np.array([[9, 1, 0], [3, 9, 2], [0, 2, 9]])
    assert analysis.worst_confusions(confusion) == [(1, 0, 3), (1, 2, 2), (2, 1, 2), (0, 1, 1)]
    assert analysis.worst_confusions(confusion, most=2) == [(1, 0, 3), (1, 2, 2)]
    assert analysis.worst_confusions(np.diag([4, 5])) == []


def test_the_ensemble_is_of_students_and_its_other_of_twins(drawn):
    labels, networks = drawn
    roles = {"a": "student", "b": "student", "a alone": "twin"}
    found = analysis.analyse(labels, networks, NAMES, roles)["nodes"]
    assert [*found] == ["a", "b", "a alone", "ensemble"]
    mean = np.mean([networks["a"], networks["b"]], axis=0)
    right = sum(mean[i].argmax() == label for i, label in enumerate(labels))
    assert found["ensemble"]["accuracy"] == right / 500
    twins = dict.fromkeys(networks, "twin")
    assert [*analysis.ensembles(networks, twins)] == ["ensemble alone"]
    assert [*analysis.ensembles(networks)] == ["ensemble"]
    assert not analysis.ensembles({"a": networks["a"]})


def test_ensembles_add_up_in_float32_as_evaluation_does():
    """Two sure networks that contradict each other are a tie, and the first class wins."""
    sure = np.array([[1e-9, 1.0]], np.float32), np.array([[1.0, 2e-9]], np.float32)
    mean = analysis.ensembles({"a": sure[0], "b": sure[1]})["ensemble"]
    assert mean[0, 0] == mean[0, 1] == 0.5
    assert np.argmax(sum(p.astype(np.float64) for p in sure), 1) == 1


def test_a_probability_of_zero_is_a_large_loss_and_not_infinite():
    certain = np.array([[1.0, 0.0]], np.float32)
    np.testing.assert_allclose(
        analysis.negative_log_likelihood(np.array([1]), certain), 87.34, 1e-3
    )


def test_kappa_at_its_ends():
    same = np.array([0, 1, 2, 1])
    assert analysis.cohen_kappa(same, same) == 1
    assert analysis.cohen_kappa(np.zeros(4, int), np.zeros(4, int)) is None
    assert analysis.cohen_kappa(np.zeros(4, int), np.ones(4, int)) == 0


@pytest.mark.parametrize(
    "labels, probabilities, message",
    [
        (LABELS[:0], BY_HAND[:0], "at least one example"),
        (LABELS + 1, BY_HAND, "whole numbers from 0 to 2"),
        (LABELS - 1, BY_HAND, "whole numbers from 0 to 2"),
        (LABELS.astype(float), BY_HAND, "whole numbers from 0 to 2"),
        (LABELS, BY_HAND[:3], r"probabilities of a must be \[4, 3\], .* not \[3, 3\]"),
        (LABELS, BY_HAND[:, :2], r"not \[4, 2\]"),
    ],
)
def test_what_does_not_fit_is_refused(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        analysis.analyse(labels, {"a": probabilities}, ["x", "y", "z"])
