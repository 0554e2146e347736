"""Standardised logits, the decoupled divergence and correlations: what they promise.

Numbers from PyTorch, gradients and masks of the losses: test_losses.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax import losses
from tests.losses.test_losses import REFERENCE

pytestmark = pytest.mark.usefixtures("strict")


def logits(classes=6, seed=0, batch=4):
    rng = np.random.default_rng(seed)
    return (3 * jnp.asarray(rng.normal(size=(batch, classes)), jnp.float32) for _ in range(2))


def finite(function, *inputs):
    """Whether values and all gradients are."""
    every = tuple(range(len(inputs)))
    value, gradients = jax.value_and_grad(lambda *x: jnp.sum(function(*x)), every)(*inputs)
    return np.isfinite(value) and all(np.all(np.isfinite(g)) for g in gradients)


def test_standardized_logits_equal_pytorch(double):
    given = {name: np.asarray(x) for name, x in REFERENCE["standardize"].items()}
    np.testing.assert_allclose(losses.standardize(given["logits"]), given["values"], rtol=1e-12)
    weights = jnp.arange(1.0, 1 + given["logits"].size).reshape(given["logits"].shape)
    gradient = jax.grad(lambda z: jnp.sum(weights * losses.standardize(z)))(given["logits"])
    np.testing.assert_allclose(gradient, given["gradient"], rtol=1e-10, atol=1e-13)


def test_standardized_logits_know_no_shift_and_no_scale(double):
    """Up to eps; and the divergence of two networks neither."""
    z, target = (x.astype(jnp.float64) for x in logits())
    for scale, shift in ((1e-2, 5.0), (7.0, -30.0), (1e3, 0.0)):
        moved = scale * z + shift
        found = losses.standardize(moved)
        bound = 3e-7 * max(1, 1 / scale)  # eps beside the deviation
        np.testing.assert_allclose(found, losses.standardize(z), rtol=0, atol=bound)
        kl = [
            losses.distillation_kl(losses.standardize(x), losses.standardize(target))
            for x in (moved, z)
        ]
        np.testing.assert_allclose(*kl, rtol=1e-4)
        tiny = np.abs(losses.standardize(moved, eps=1e-30) - losses.standardize(z, eps=1e-30))
        assert np.max(tiny) < 1e-10
    assert not np.allclose(losses.standardize(-z), losses.standardize(z))


@pytest.mark.parametrize("value", [3.0, 0.1, 100.1])  # the mean of 100 rounds but for the first
def test_equal_logits_become_zeros_and_get_no_gradient(value):
    equal = jnp.full((2, 100), value).at[1, 7].set(-jnp.inf)
    there = equal != -jnp.inf
    np.testing.assert_array_equal(losses.standardize(equal), jnp.where(there, 0, -jnp.inf))
    pulled = jax.grad(lambda z: jnp.sum(jnp.where(there, losses.standardize(z), 0)[:, :9]))(equal)
    assert not np.any(pulled)


def test_masked_and_half_precision_logits():
    z, _ = logits()
    where = jnp.array([True, False, True, True])
    spoilt = z.at[1].set(jnp.nan)
    found = losses.standardize(spoilt, where=where)
    np.testing.assert_array_equal(found, jnp.where(where[:, None], losses.standardize(z), 0))
    assert not np.any(jax.grad(lambda z: losses.standardize(z, where=where)[0, 0])(spoilt)[1])
    assert losses.standardize(z.astype(jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_two_parts_make_the_whole_divergence(temperature, double):
    """KL = KL(b_t || b) + (1 - q_y) KL(q^ || p^)."""
    z, target = (x.astype(jnp.float64) for x in logits())
    labels = jnp.array([0, 5, 2, 2])
    options = {"temperature": temperature}
    left = 1 - jax.nn.softmax(target / temperature)[jnp.arange(4), labels]
    parts = losses.target_class_kl(z, target, labels, **options)
    parts += left * losses.other_classes_kl(z, target, labels, **options)
    np.testing.assert_allclose(parts, losses.distillation_kl(z, target, **options), rtol=1e-12)


def test_the_other_classes_do_not_know_the_labels_logits():
    z, target = logits()
    labels = jnp.array([0, 5, 2, 2])
    changed = z.at[jnp.arange(4), labels].set(1e4)
    found = losses.other_classes_kl(z, target, labels)
    np.testing.assert_array_equal(losses.other_classes_kl(changed, target, labels), found)
    assert np.all(found > 0.01)


@pytest.mark.parametrize("loss", [losses.target_class_kl, losses.other_classes_kl])
def test_both_parts_are_finite(loss):
    """For logits far apart, two classes, masked classes, and where all but the label are masked."""
    labels = jnp.array([0, 1])

    def free(z, target, temperature=1.0):
        return loss(z, target, labels, temperature=temperature, stop_target_gradient=False)

    far = jnp.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]])
    for temperature in (1e-2, 1.0, 4.0):
        assert finite(lambda a, b, t=temperature: free(a, b, t), far, far[::-1])
        assert finite(lambda a, b, t=temperature: free(a, b, t), far[::-1], far)
    two = jnp.array([[3.0, -2.0], [0.5, 0.0]])
    assert finite(free, two, -two)
    masked = jnp.array([[1.0, 2.0, -jnp.inf, 0.0], [3.0, 1.0, -jnp.inf, 2.0]])
    other = jnp.array([[0.0, 1.0, -jnp.inf, 2.0], [0.0, 4.0, -jnp.inf, 2.0]])
    assert finite(free, masked, other)
    without = jnp.array([0, 1, 3])
    expected = free(masked[:, without], other[:, without])
    np.testing.assert_allclose(free(masked, other), expected, rtol=1e-6)
    alone = jnp.array([[1.0, -jnp.inf], [-jnp.inf, 0.0]])
    assert finite(free, alone, alone) and not np.any(free(alone, alone))


def test_what_only_one_side_leaves_out():
    """Infinite where the target has the class; no share where it has not; NaN is not left out."""
    z, target = logits(3)
    labels = jnp.array([0, 1, 2, 0])
    other = jnp.array([[0, 1, 0]] * 4) > 0  # of the label of the second example
    for loss, infinite in (
        (losses.target_class_kl, [False, True, False, False]),
        (losses.other_classes_kl, [True, False, True, True]),
    ):
        left_out = jnp.where(other, -jnp.inf, z)
        np.testing.assert_array_equal(np.isinf(loss(left_out, target, labels)), infinite)
        assert finite(lambda x, f=loss: f(z, x, labels), jnp.where(other, -jnp.inf, target))
        assert np.isnan(loss(z.at[0, 1].set(jnp.nan), target, labels)[0])


def test_a_class_left_out_stays_out_of_the_standard_form():
    z, _ = logits()
    wider = jnp.concatenate([z, jnp.full((4, 2), -jnp.inf)], axis=1)
    found = losses.standardize(wider)
    np.testing.assert_allclose(found[:, :6], losses.standardize(z), rtol=1e-6)
    assert np.all(found[:, 6:] == -jnp.inf)
    assert finite(lambda z: losses.standardize(z)[:, :6], wider)
    assert np.all(np.isnan(losses.standardize(wider.at[0, 0].set(jnp.nan))[0, :6]))


def test_two_classes_have_one_part():
    z, target = logits(2)
    labels = jnp.array([0, 1, 1, 0])
    assert not np.any(losses.other_classes_kl(z, target, labels))
    whole = losses.distillation_kl(z, target)
    np.testing.assert_allclose(losses.target_class_kl(z, target, labels), whole, rtol=1e-5)


def test_correlation_knows_no_positive_affine_map_of_a_row(double):
    p, q = (jax.nn.softmax(x.astype(jnp.float64)) for x in logits())
    scale, shift = (
        jnp.array([[0.5], [2.0], [7.0], [100.0]]),
        jnp.array([[1.0], [0.0], [-3.0], [9.0]]),
    )
    found = losses.correlation_distance(p, q)
    np.testing.assert_allclose(losses.correlation_distance(scale * p + shift, q), found, atol=1e-6)
    np.testing.assert_allclose(losses.correlation_distance(p, scale * q + shift), found, atol=1e-6)
    np.testing.assert_allclose(losses.correlation_distance(q, scale * q + shift), 0, atol=1e-6)
    np.testing.assert_allclose(losses.correlation_distance(q, shift - scale * q), 2, atol=1e-6)
    assert np.all(found > 0.05)


@pytest.mark.parametrize("value", [0.25, 0.1])  # the mean of 100 of the second rounds
def test_a_constant_row_is_uncorrelated_and_gets_no_gradient(value):
    constant, row = jnp.full((1, 100), value), jnp.arange(100.0)[None] / 4950
    distance = functools.partial(losses.correlation_distance, stop_target_gradient=False)
    for pair in ((constant, row), (row, constant), (constant, constant)):
        np.testing.assert_array_equal(distance(*pair), 1)
        for gradient in jax.grad(lambda *x: jnp.sum(distance(*x)), (0, 1))(*pair):
            assert not np.any(gradient)


def test_a_class_left_out_says_nothing_of_the_temperature():
    (z, target), labels = logits(), jnp.array([0, 5, 2, 2])
    left_out = jnp.full((4, 1), -jnp.inf)
    wider = [jnp.concatenate([x, left_out], axis=1) for x in (z, target)]
    for loss in (
        losses.distillation_kl,
        functools.partial(losses.target_class_kl, labels=labels),
        functools.partial(losses.other_classes_kl, labels=labels),
    ):
        own, same = (
            jax.grad(lambda t, x=x, loss=loss: jnp.sum(loss(*x, temperature=t)))(3.0)
            for x in ((z, target), wider)
        )
        assert own and np.isfinite(own)
        np.testing.assert_allclose(same, own, rtol=1e-5)


Z, LABELS = jnp.zeros((2, 3)), jnp.zeros(2, int)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: losses.standardize(Z[:, :1]), ValueError, "at least 2 classes"),
        (lambda: losses.standardize(Z, eps=0), ValueError, "eps=0"),
        (lambda: losses.standardize(LABELS), TypeError, "floating"),
        (lambda: losses.target_class_kl(Z, Z, Z), TypeError, "labels must be integers"),
        (lambda: losses.target_class_kl(Z, Z, LABELS[:1]), ValueError, r"need shape \(2,\)"),
        (lambda: losses.target_class_kl(Z, Z[:, :2], LABELS), ValueError, "shapes must be equal"),
        (
            lambda: losses.other_classes_kl(Z[:, :1], Z[:, :1], LABELS),
            ValueError,
            "at least 2 classes",
        ),
        (
            lambda: losses.other_classes_kl(Z, Z, LABELS, temperature=0),
            ValueError,
            "temperature=0",
        ),
        (lambda: losses.correlation_distance(Z, Z[:1]), ValueError, "shapes must be equal"),
        (lambda: losses.correlation_distance(Z, Z, eps=-1.0), ValueError, "eps=-1.0"),
    ],
)
def test_bad_input_is_named(make, error, words):
    with pytest.raises(error, match=words):
        make()
