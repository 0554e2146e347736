"""KDCL's common targets, against NumPy and SciPy written another way, and its views of a batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from afd_jax.data import Recipe
from afd_jax.errors import SettingError
from afd_jax.graph import Graph, all_pairs
from afd_jax.methods import KDCL, Independent
from afd_jax.methods.base import Context
from afd_jax.methods.kdcl import TARGETS
from afd_jax.networks import Outputs
from afd_jax.step import views
from tests import small

CLASSES, BATCH = 4, 6


def logits(networks):
    rng = np.random.default_rng(networks)
    return rng.normal(size=(networks, BATCH, CLASSES)) * 2, rng.integers(CLASSES, size=BATCH)


def entropy(z, label):
    return np.log(np.sum(np.exp(z))) - z[label]


@pytest.mark.parametrize("networks", [2, 3])
@pytest.mark.parametrize("name", TARGETS)
def test_targets_equal_loops_over_examples(name, networks, double):
    z, labels = logits(networks)
    expected = []
    for b, label in enumerate(labels):
        own = z[:, b]
        if name == "naive":
            expected.append(own[np.argmin([entropy(row, label) for row in own])])
        elif name == "minlogit":
            expected.append([min(row[c] - row[label] for row in own) for c in range(CLASSES)])
        elif networks == 2:

            def of(a, own=own, label=label):
                return entropy(a * own[0] + (1 - a) * own[1], label)

            best = minimize_scalar(of, bounds=(0, 1), method="bounded", options={"xatol": 1e-9})
            expected.append(best.fun)
        else:  # no other mix of a fine grid is better
            parts = [(i, j, 50 - i - j) for i in range(51) for j in range(51 - i)]
            expected.append(min(entropy(np.array(p) @ own / 50, label) for p in parts))
    target = np.asarray(TARGETS[name](jnp.asarray(z), jnp.asarray(labels)))
    if name == "linear":
        ours = np.array([entropy(t, label) for t, label in zip(target, labels, strict=True)])
        if networks == 2:
            np.testing.assert_allclose(ours, expected, atol=1e-6)
        else:
            assert np.all(ours <= np.array(expected) + 2e-3)
    else:
        np.testing.assert_allclose(target, expected, rtol=1e-12)


def terms(method, z, labels, k=0):
    maps = jnp.zeros((BATCH, 1, 1, 1))
    outputs = [Outputs(jnp.asarray(row), maps) for row in z]
    return method.logit_terms(k, outputs, Context(jnp.asarray(labels), jnp.arange(BATCH)))[0]


def test_loss_is_cross_entropy_and_softened_divergence_from_the_target(double):
    z, labels = logits(2)
    method = KDCL(Graph(2, all_pairs(2)), target="naive", temperature=2.0, distillation_weight=0.5)
    found = terms(method, z, labels)
    for b, label in enumerate(labels):
        best = z[np.argmin([entropy(row[b], label) for row in z]), b]
        p, q = (np.exp(v / 2) / np.sum(np.exp(v / 2)) for v in (best, z[0, b]))
        expected = 0.5 * 4 * np.sum(p * np.log(p / q))
        np.testing.assert_allclose(found["distillation"][b], expected, atol=1e-12)
        np.testing.assert_allclose(found["cross_entropy"][b], entropy(z[0, b], label))


@pytest.mark.parametrize("name", TARGETS)
def test_the_target_is_a_constant_though_it_holds_the_own_logits(name, double):
    z, labels = logits(2)
    method = KDCL(Graph(2, all_pairs(2)), target=name)

    def loss(z):
        return jnp.sum(terms(method, z, labels)["distillation"])

    gradient = jax.grad(loss)(jnp.asarray(z))
    assert not np.any(gradient[1])
    target = TARGETS[name](jnp.asarray(z), jnp.asarray(labels))
    softened = jax.nn.softmax(z[0] / 3.0) - jax.nn.softmax(target / 3.0)
    np.testing.assert_allclose(gradient[0], 3.0 * softened, rtol=1e-9, atol=1e-12)


def test_each_network_sees_its_own_augmentation_and_a_twin_its_originals():
    recipe = Recipe(mean=(0.5, 0.5), std=(0.5, 0.5), pad=2, flip=True)
    rng = np.random.default_rng(0)
    batch = {
        "image": jnp.asarray(rng.integers(256, size=(16, *small.IMAGE_SHAPE), dtype=np.uint8)),
        "index": jnp.arange(16),
    }
    cohort = small.cohort(method=KDCL(Graph(2, all_pairs(2))), alone=True)
    one, other, twin, other_twin = views(cohort, recipe.train, jax.random.key(0), batch)
    assert np.any(one != other)
    np.testing.assert_array_equal(one, twin)
    np.testing.assert_array_equal(other, other_twin)
    shared = dataclasses.replace(cohort, method=Independent(cohort.method.graph))
    one, other, *_ = views(shared, recipe.train, jax.random.key(0), batch)
    np.testing.assert_array_equal(one, other)


def test_bad_options_are_named():
    with pytest.raises(
        SettingError, match=r"method\.target = 'max': Choose one of: general, linear"
    ):
        KDCL(Graph(2, all_pairs(2)), target="max")
    with pytest.raises(SettingError, match=r"method\.own_augmentation = 1: must be True or False"):
        KDCL(Graph(2, all_pairs(2)), own_augmentation=1)
