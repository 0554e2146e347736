"""KDCL's common targets, against NumPy and SciPy written another way, and its views of a batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

from afd_jax.data import Recipe
from afd_jax.engine.evaluate import heldout_step
from afd_jax.engine.inputs import views
from afd_jax.errors import SettingError
from afd_jax.methods import DML, KDCL
from afd_jax.methods.batch import Batch
from afd_jax.methods.kdcl import TARGETS, general_target
from afd_jax.methods.method import View
from afd_jax.networks import Outputs
from afd_jax.runs.assemble import assemble
from afd_jax.runs.overrides import read_config
from afd_jax.runs.trained import load
from tests import small
from tests.running import CONFIG, SETTINGS, command, final_state

CLASSES, BATCH = 4, 6
NAMES = ("net", "other", "a third")  # in no alphabetical order


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


def terms(method, z, labels, *, own=0, sources=None, memory=None):
    """The logit losses of one network; its sources are all others unless they are named."""

    def view(k, row):
        maps = jnp.zeros((len(row), 1, 1, 1), row.dtype)
        return View(NAMES[k], "student", Outputs(jnp.asarray(row), maps))

    nodes = [view(k, row) for k, row in enumerate(z)]
    sources = [k for k in range(len(z)) if k != own] if sources is None else sources
    batch = Batch(label=jnp.asarray(labels), memory=memory)
    return method.losses(nodes[own], [nodes[k] for k in sources], batch).logit


def test_loss_is_cross_entropy_and_softened_divergence_from_the_target(double):
    z, labels = logits(2)
    method = KDCL(target="naive", temperature=2.0, distillation_weight=0.5)
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
    method = KDCL(target=name)
    gradient = jax.grad(lambda z: jnp.sum(terms(method, z, labels)["distillation"]))(jnp.asarray(z))
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
    for own in (True, False):
        cohort = small.cohort(method=KDCL(), twins=True, own_augmentation=own)
        seen = views(cohort.plan, recipe.train, jax.random.key(0), batch)
        assert np.any(seen["a"] != seen["b"]) == own
        np.testing.assert_array_equal(seen["a"], seen["a alone"])
        np.testing.assert_array_equal(seen["b"], seen["b alone"])
    with pytest.raises(SettingError, match="own_augmentation = True: a teacher sees one"):
        small.cohort(method=DML(), teachers=["tests.tiny:Tiny"], own_augmentation=True)


def test_bad_options_are_named():
    with pytest.raises(SettingError, match=r"method\.target = 'max': Choose one of: general"):
        KDCL(target="max")


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
    method, mask = KDCL(target="general"), np.arange(210) < 200  # padding does not count
    padded = {
        name: jnp.asarray(np.concatenate([row, 9 * row[:10]]))
        for name, row in zip(NAMES, z, strict=True)
    }
    label = jnp.asarray(np.r_[labels, labels[:10]])
    sums = method.heldout_sums(padded, label, jnp.asarray(mask))
    memory = method.after_epoch(method.begin(NAMES, 0, CLASSES), sums)
    rows = memory["error_covariance"]
    covariance = jnp.array([[rows[i][j] for j in NAMES] for i in NAMES])
    expected = np.einsum("k,kbc->bc", [a, b, 1 - a - b], z)
    np.testing.assert_allclose(general_target(jnp.asarray(z), covariance), expected, atol=1e-4)

    # A network learns from the mix of itself and its own sources: their divergence is the mix's.
    two = minimize_scalar(lambda w: error([w, 1 - w]), bounds=(-2, 3), method="bounded").x
    for own, sources, mix in ((1, [0], two * z[0] + (1 - two) * z[1]), (2, [0, 1], expected)):
        found = terms(method, z, labels, own=own, sources=sources, memory=memory)["distillation"]
        q, p = (jax.nn.log_softmax(jnp.asarray(x) / 3) for x in (z[own], mix))
        divergence = 9 * jnp.sum(jnp.exp(p) * (p - q), axis=1)
        np.testing.assert_allclose(found, divergence, atol=2e-3)


@pytest.mark.parametrize("size", [0.0, 1e-36])
def test_without_an_error_all_networks_weigh_the_same(size):
    z = jnp.array([[[1.0, 0.0]], [[3.0, 4.0]]])
    found = general_target(z, size * jnp.eye(2))
    np.testing.assert_allclose(found, [[2.0, 2.0]], rtol=1e-6)


def test_general_target_starts_from_even_weights_and_is_renewed_by_name():
    """In the engine: sums over the held-out set make the products of the errors by NumPy."""
    cohort = small.cohort(((3, 4, 5), (3, 4, 5), (3, 4, 7)), method=KDCL(target="general"))
    plan, state = cohort.plan, small.begin(cohort)
    start = {i: {j: float(i == j) for j in "abc"} for i in "abc"}
    assert jax.tree.map(float, state.memory["error_covariance"]) == start
    z, labels = logits(2)
    z, method = z.astype(np.float32), KDCL(target="general")
    even = terms(method, z, labels, memory=method.begin(NAMES, 0, CLASSES))
    assert plan.memory.uses_heldout and not KDCL().uses_heldout
    mean = jnp.asarray(np.mean(z, axis=0))
    q, p = (jax.nn.log_softmax(jnp.asarray(x) / 3) for x in (z[0], mean))
    expected = 9 * jnp.sum(jnp.exp(p) * (p - q), axis=1)
    np.testing.assert_allclose(even["distillation"], expected, rtol=1e-4, atol=1e-5)

    step = jax.jit(functools.partial(heldout_step, plan))
    batches = [{**small.batch(16, seed), "mask": jnp.arange(16) < 16 - 5 * seed} for seed in (0, 1)]
    first, second = (step(state, batch) for batch in batches)
    memory = plan.memory.after_epoch(state.memory, jax.tree.map(jnp.add, first, second))
    errors = {}
    for name in "abc":
        rows = []
        for batch in batches:
            p = jax.nn.softmax(cohort.logits(state, batch["image"])[name])
            wrong = np.asarray(p) - np.eye(small.CLASSES)[np.asarray(batch["label"])]
            rows.append(wrong[np.asarray(batch["mask"])])
        errors[name] = np.concatenate(rows)
    assert len(errors["a"]) == 27
    for i in "abc":
        for j in "abc":
            expected = np.mean(np.sum(errors[i] * errors[j], axis=1))
            np.testing.assert_allclose(memory["error_covariance"][i][j], expected, rtol=1e-4)


def test_a_run_renews_the_weights_from_the_held_out_images(tmp_path, capsys):
    more = [
        *SETTINGS[:-1],
        "--config.method.name=kdcl",
        "--config.method.target=general",
        "--config.graph=all_pairs",
        "--config.twins=False",
        "--config.duration=2 epochs",
    ]
    assert command(tmp_path / "refused", *more, "--config.data.heldout=0", settings=()) == 2
    assert "config.data.heldout = 0.0: the method learns from held-out" in capsys.readouterr().err
    assert command(tmp_path / "w", *more, settings=()) == 0
    memory = final_state(tmp_path / "w", *more, settings=()).memory["error_covariance"]
    heldout = assemble(read_config(CONFIG, more)).splits.heldout
    errors = {}
    for name in memory:
        z = np.asarray(load(tmp_path / "w", name, trust=True)(heldout.images).logits, np.float64)
        p = np.exp(z - np.max(z, 1, keepdims=True))
        errors[name] = p / np.sum(p, 1, keepdims=True) - np.eye(10)[heldout.labels]
    assert {*memory} == {"Tiny", "Wider"}
    for i, a in errors.items():
        for j, b in errors.items():
            np.testing.assert_allclose(memory[i][j], np.mean(np.sum(a * b, 1)), rtol=1e-4)
