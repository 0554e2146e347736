"""HSIC and CKA against two other ways to write the same U-statistic, and their promises."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax import losses

pytestmark = pytest.mark.usefixtures("strict")


def over_quadruples(x, y):
    """The definition: the mean over all ordered quadruples of different examples."""
    k, m = (a.reshape(len(a), -1) @ a.reshape(len(a), -1).T for a in (x, y))
    values = [
        k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q])
        for i, j, q, r in itertools.permutations(range(len(x)), 4)
    ]
    return np.mean(values)


def u_centred(x, y):
    """Inner product of U-centred Gram matrices, as distance covariance has it."""

    def centred(a):
        n, gram = len(a), a.reshape(len(a), -1) @ a.reshape(len(a), -1).T
        gram = gram - np.diag(np.diag(gram))
        rows = gram.sum(0) / (n - 2)
        gram = gram - rows[:, None] - rows[None] + gram.sum() / ((n - 1) * (n - 2))
        return gram - np.diag(np.diag(gram))

    return np.sum(centred(x) * centred(y)) / (len(x) * (len(x) - 3))


def maps(count, *, seed=0, common=0.5):
    """Two networks' maps of unlike shapes that have something in common."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(count, 3, 3, 2)), rng.normal(size=(count, 2, 2, 5))
    y[..., 0] += common * x[:, :2, :2, 0] + 0.3
    return x, y


@pytest.mark.parametrize("count", [4, 5, 7])
def test_hsic_is_the_mean_over_quadruples(count, double):
    x, y = maps(count)
    for pair in ((x, y), (x, x), (y, y)):
        np.testing.assert_allclose(losses.linear_hsic(*pair), over_quadruples(*pair), rtol=1e-10)


def test_hsic_and_cka_equal_u_centred_matrices(double):
    x, y = maps(40)
    xy, xx, yy = (u_centred(*pair) for pair in ((x, y), (x, x), (y, y)))
    np.testing.assert_allclose(losses.linear_hsic(x, y), xy, rtol=1e-10)
    expected = xy / np.sqrt(xx * yy)
    np.testing.assert_allclose(losses.linear_cka(x, y), expected, rtol=1e-10)
    np.testing.assert_allclose(losses.linear_cka(y, x), expected, rtol=1e-10)
    assert 0.02 < expected < 0.9


def test_a_mask_is_a_slice(double):
    x, y = maps(12)
    where = np.arange(12) % 3 != 1
    x[~where], y[~where] = np.nan, np.inf
    for function in (losses.linear_hsic, losses.linear_cka):
        ours, theirs = function(x, y, where=where), function(x[where], y[where])
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_hsic_may_be_averaged_over_batches(double):
    """The mean over all batches of five out of eight is the value of all eight, exactly."""
    x, y = maps(8)
    batches = [losses.linear_hsic(x[[*b]], y[[*b]]) for b in itertools.combinations(range(8), 5)]
    np.testing.assert_allclose(np.mean(batches), losses.linear_hsic(x, y), rtol=1e-10)


def test_cka_of_sums_over_batches_is_close_to_that_of_the_whole(double):
    x, y = maps(640, common=2)
    pairs = ((x, y), (x, x), (y, y))
    parts = [
        [losses.linear_hsic(v[n : n + 16], w[n : n + 16]) for v, w in pairs]
        for n in range(0, 640, 16)
    ]
    whole = losses.linear_cka(x, y)
    assert abs(losses.cka_ratio(*np.sum(parts, 0)) - whole) < 0.02 < whole / 10


def test_cka_does_not_see_rotation_scale_and_shift(double):
    x, y = maps(20)
    rng = np.random.default_rng(1)
    rotation = np.linalg.qr(rng.normal(size=(18, 18)))[0]
    turned = 0.01 * (x.reshape(20, 18) @ rotation) + 30 * rng.normal(size=18)
    np.testing.assert_allclose(losses.linear_cka(turned, y), losses.linear_cka(x, y), rtol=1e-8)
    np.testing.assert_allclose(losses.linear_cka(turned, x), 1, rtol=1e-8)
    skewed = x.reshape(20, 18) * np.linspace(0, 3, 18)
    assert losses.linear_cka(skewed, x) < 0.99


def test_cka_of_independent_maps_is_zero_in_the_mean():
    """The usual estimate, which is biased, would be above 0.6 here."""
    cka, values = jax.jit(losses.linear_cka), []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        values.append(cka(*(rng.normal(size=(16, 40)).astype(np.float32) for _ in range(2))))
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(100) < 0.05
    assert min(values) < 0 < max(values)


def test_fewer_than_four_examples_have_no_estimate():
    x, y = (jnp.asarray(a, jnp.float32) for a in maps(6))
    few = jnp.arange(6) < 3
    for function in (losses.linear_hsic, losses.linear_cka):
        assert function(x[:3], y[:3]) == function(x, y, where=few) == 0
        least = function(x[:4], y[:4])
        assert least != 0
        np.testing.assert_allclose(function(x, y, where=jnp.arange(6) < 4), least, rtol=1e-5)
        assert function(x[:1], y[:1]) == 0


@pytest.mark.parametrize("value", [0.0, 0.1, -7.7])
def test_a_constant_map_is_like_no_other(value):
    x, _ = maps(13)
    constant, x = jnp.full((13, 6), value, jnp.float32), jnp.asarray(x, jnp.float32)
    assert losses.linear_hsic(constant, x) == 0
    for where in (None, jnp.arange(13) > 3):
        for pair in ((constant, x), (x, constant), (constant, constant)):
            assert losses.linear_cka(*pair, where=where) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_no_zero(value):
    x = jnp.asarray(maps(13)[0], jnp.float32)
    wrong = x.at[3, 1].set(value)
    for pair in ((wrong, x), (x, wrong), (wrong, wrong)):
        assert np.isnan(losses.linear_cka(*pair))
        assert losses.linear_cka(*pair, where=jnp.arange(13) != 3) > 0
    assert np.isnan(losses.cka_ratio(*jnp.array([1.0, np.nan, 1.0])))


def test_float32_survives_an_offset_and_jit():
    x, y = (a + 3000 for a in maps(32))
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    expected = u_centred(np.asarray(x, np.float64), np.asarray(y, np.float64))
    for function in (losses.linear_hsic, jax.jit(losses.linear_hsic)):
        value = function(x, y)
        assert value.shape == () and value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected, rtol=1e-3)
    half = (jnp.asarray(a - 3000, jnp.bfloat16) for a in (x, y))
    assert losses.linear_cka(*half).dtype == jnp.float32


@pytest.mark.parametrize("scale", [1e-7, 1e5])
def test_cka_does_not_over_or_underflow(scale):
    """HSIC grows with the fourth power of the maps, its products with the eighth."""
    x = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
    y = x[:, ::-1] ** 3
    expected = losses.linear_cka(x, y)
    found = losses.linear_cka(np.float32(scale) * x, np.float32(scale) * y)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_ratio_of_sums():
    values = [jnp.float32(v) for v in (2, 4, 9)]
    np.testing.assert_allclose(losses.cka_ratio(*values), 2 / 6, rtol=1e-6)
    for own, other in ((0, 9), (4, 0), (-4, 9), (0, 0)):
        assert losses.cka_ratio(values[0], jnp.float32(own), jnp.float32(other)) == 0
    gradient = jax.grad(losses.cka_ratio, argnums=(0, 1, 2))(*(jnp.zeros(()),) * 3)
    assert not np.any(np.isnan(gradient))


@pytest.mark.parametrize(
    ("shapes", "dtype", "error", "words"),
    [
        (((5, 2), (6, 2)), float, ValueError, r"maps \(5,\), other_maps \(6,\)"),
        (((5,), (5, 2)), float, ValueError, "maps needs at least 2 dimensions"),
        (((5, 2), (5,)), float, ValueError, "maps needs at least 2 dimensions"),
        (((5, 2), (5, 2)), int, TypeError, "expected a floating-point array, got int"),
    ],
)
def test_wrong_inputs_are_named(shapes, dtype, error, words):
    for function in (losses.linear_hsic, losses.linear_cka):
        with pytest.raises(error, match=words):
            function(*(jnp.ones(shape, dtype) for shape in shapes))


def test_wrong_masks_are_named():
    x = jnp.ones((5, 2))
    with pytest.raises(TypeError, match="where must be boolean"):
        losses.linear_hsic(x, x, where=jnp.ones(5))
    with pytest.raises(ValueError, match=r"where needs shape \(5,\)"):
        losses.linear_hsic(x, x, where=jnp.ones(4, bool))


def test_the_ratio_of_nothing_and_of_unlike_sums_is_refused():
    with pytest.raises(ValueError, match="between must not be empty"):
        losses.cka_ratio(*3 * [jnp.zeros(0)])
    with pytest.raises(ValueError, match="shapes must be equal"):
        losses.cka_ratio(jnp.ones(2), jnp.ones(2), jnp.ones((2, 1)))
    with pytest.raises(TypeError, match="floating-point"):
        losses.cka_ratio(jnp.ones(2), jnp.ones(2), jnp.ones(2, bool))
