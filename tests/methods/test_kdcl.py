"""KDCL's common targets, against NumPy and SciPy written another way, and its views of a batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

from afd_jax.runs.assemble import assemble
from afd_jax.data import Recipe
from afd_jax.errors import SettingError
from afd_jax.graph import Graph, all_pairs
from afd_jax.methods import KDCL, Independent
from afd_jax.methods.method import Context
from afd_jax.methods.kdcl import TARGETS, general_target
from afd_jax.networks import Outputs
from afd_jax.runs.overrides import read_config
from afd_jax.engine.step import views
from afd_jax.runs.trained import load_network
from tests import small
from tests.running import CONFIG, SETTINGS, command, final_state

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


def test_general_targets_weights_make_the_least_error(double):
    """Against a numerical search among all weights of sum 1."""
    rng = np.random.default_rng(0)
    z, labels = rng.normal(size=(3, 200, CLASSES)), rng.integers(CLASSES, size=200)
    z[np.arange(3), :, :] += 2 * np.eye(CLASSES)[labels] * np.array([1.0, 0.5, 0.8])[:, None, None]
    p = np.exp(z) / np.sum(np.exp(z), axis=-1, keepdims=True)

    def error(w):
        mixed = w[0] * p[0] + w[1] * p[1] + (1 - w[0] - w[1]) * p[2]
        return np.sum((mixed - np.eye(CLASSES)[labels]) ** 2)

    a, b = minimize(error, [1 / 3, 1 / 3], tol=1e-12).x
    method = KDCL(Graph(3, all_pairs(3)), target="general")
    mask = np.arange(210) < 200  # padding does not count
    padded = [jnp.asarray(np.concatenate([row, 9 * row[:10]])) for row in z]
    sums = method.heldout_sums(padded, jnp.asarray(np.r_[labels, labels[:10]]), jnp.asarray(mask))
    memory = method.update_memory(method.init_memory(0, CLASSES), sums)
    expected = np.einsum("k,kbc->bc", [a, b, 1 - a - b], z)
    found = general_target(jnp.asarray(z), memory["error_covariance"])
    np.testing.assert_allclose(found, expected, atol=1e-4)

    # A node learns from the mix of itself and its own sources.
    ring = dataclasses.replace(method, graph=Graph(3, ((0, 1), (1, 2), (2, 0))))
    outputs = [Outputs(jnp.asarray(row), jnp.zeros((200, 1, 1, 1))) for row in z]
    (target,) = ring.target_logits(
        1, outputs, Context(jnp.asarray(labels), jnp.arange(200), memory=memory)
    )
    two = minimize_scalar(lambda w: error([w, 1 - w]), bounds=(-2, 3), method="bounded").x
    np.testing.assert_allclose(target, two * z[0] + (1 - two) * z[1], atol=1e-3)


def test_general_target_starts_from_even_weights():
    method = KDCL(Graph(2, all_pairs(2)), target="general")
    z, labels = logits(2)
    outputs = [Outputs(jnp.asarray(row, jnp.float32), jnp.zeros((BATCH, 1, 1, 1))) for row in z]
    context = Context(jnp.asarray(labels), jnp.arange(BATCH), memory=method.init_memory(0, CLASSES))
    (target,) = method.target_logits(0, outputs, context)
    np.testing.assert_allclose(target, np.mean(z, axis=0), rtol=1e-5)


def test_a_run_renews_the_weights_from_the_held_out_images(tmp_path, capsys):
    more = [
        *SETTINGS[:-1],
        "--config.method.name=kdcl",
        "--config.method.target=general",
        "--config.graph=all_pairs",
        "--config.alone=False",
        "--config.duration=2 epochs",
    ]
    assert command(tmp_path / "refused", *more, "--config.data.heldout=0", settings=()) == 2
    assert "config.data.heldout = 0.0: the method learns from held-out" in capsys.readouterr().err
    assert command(tmp_path / "w", *more, settings=()) == 0
    covariance = final_state(tmp_path / "w", *more, settings=()).memory["error_covariance"]
    heldout = assemble(read_config(CONFIG, more)).splits.heldout
    errors = []
    for k in range(2):
        z = np.asarray(load_network(tmp_path / "w", k)(heldout.images).logits, np.float64)
        p = np.exp(z - np.max(z, 1, keepdims=True))
        errors.append(p / np.sum(p, 1, keepdims=True) - np.eye(10)[heldout.labels])
    expected = [[np.mean(np.sum(a * b, 1)) for a in errors] for b in errors]
    np.testing.assert_allclose(covariance, expected, rtol=1e-4)
