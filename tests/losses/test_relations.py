"""Losses on relations between examples, against NumPy written pair by pair.

The methods that carry them are compared with PyTorch in tests/methods/test_reference_taught.py.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from afd_jax import losses

pytestmark = pytest.mark.usefixtures("strict")

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(5, 2, 2, 3)), RNG.normal(size=(5, 1, 4))


def huber(x):
    return np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)


def similarity(x, i, j):
    products = [x[i] @ other for other in x]
    return products[j] / np.sqrt(np.sum(np.square(products)))


def distance(x, i, j):
    pairs = itertools.permutations(range(len(x)), 2)
    return np.linalg.norm(x[i] - x[j]) / np.mean([np.linalg.norm(x[k] - x[m]) for k, m in pairs])


def cosine(a, b):
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return a @ b / lengths if lengths else 0.0


def neighbour(x, i, j):
    alike = [1 + cosine(x[i], other) for other in x]
    return alike[j] / sum(alike)


def divergence(a, b, i, j):
    p, q = neighbour(a, i, j), neighbour(b, i, j)
    return q * np.log((q + 1e-7) / (p + 1e-7))


def angles(a, b, i, j):
    apart = [
        cosine(a[j] - a[i], a[k] - a[i]) - cosine(b[j] - b[i], b[k] - b[i]) for k in range(len(a))
    ]
    return np.mean(huber(np.array(apart)))


EACH = {  # of a pair of examples
    "similarity_preserving": lambda a, b, i, j: (similarity(a, i, j) - similarity(b, i, j)) ** 2,
    "relational_distance": lambda a, b, i, j: huber(distance(a, i, j) - distance(b, i, j)),
    "relational_angle": angles,
    "probabilistic_transfer": divergence,
}


def expected(name, a, b):
    a, b = (x.reshape(len(x), -1) for x in (a, b))
    count = range(len(a))
    return np.array([np.mean([EACH[name](a, b, i, j) for j in count]) for i in count])


@pytest.mark.parametrize("name", EACH)
def test_each_value_is_the_mean_over_all_partners(name, double):
    function = getattr(losses, name)
    found = jax.jit(function)(A, B)
    np.testing.assert_allclose(found, expected(name, A, B), rtol=1e-8, atol=1e-12)
    assert np.min(found) > 1e-5
    rows = function(A, B, rows=jnp.array([3, 1]))
    np.testing.assert_allclose(rows, found[np.array([3, 1])], rtol=1e-12)
    np.testing.assert_allclose(function(A, 7 * A), 0, atol=1e-9)
    check_grads(lambda a: function(a, B), [jnp.asarray(A)], order=1, modes=["rev"], rtol=1e-5)
    with_target = lambda b: jnp.sum(function(A, b, stop_target_gradient=False))  # noqa: E731
    assert np.any(jax.grad(with_target)(jnp.asarray(B)))
    assert not np.any(jax.grad(lambda b: jnp.sum(function(A, b)))(jnp.asarray(B)))


@pytest.mark.parametrize("name", EACH)
def test_a_masked_example_is_compared_with_no_other(name):
    function, where = getattr(losses, name), jnp.array([True, False, True, True, False])
    a, b = (jnp.asarray(x, jnp.float32) for x in (A, B))
    spoilt = [x.at[1].set(jnp.nan).at[4].set(jnp.inf) for x in (a, b)]
    found = function(*spoilt, where=where)
    assert found.dtype == jnp.float32 and not np.any(found[~where])
    np.testing.assert_allclose(found[where], function(a[where], b[where]), rtol=1e-4, atol=1e-6)
    gradient = jax.grad(lambda x: jnp.sum(function(x, spoilt[1], where=where)))(spoilt[0])
    assert np.all(np.isfinite(gradient)) and not np.any(gradient[~where])


@pytest.mark.parametrize("name", EACH)
def test_equal_examples_and_zeros_are_finite(name):
    function = getattr(losses, name)
    for a in (jnp.zeros((3, 2)), jnp.ones((3, 2)), jnp.ones((1, 2))):
        value, gradient = jax.value_and_grad(lambda x: jnp.sum(function(x, x[:, :1] + 1)))(a)
        assert np.isfinite(value) and np.all(np.isfinite(gradient))


def test_contrast_is_the_mean_over_the_own_class(double):
    """Against NumPy; between two networks, for some rows, and without some examples."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in RNG.normal(size=(2, 6, 3)))
    labels, loss = np.array([1, 0, 1, 2, 1, 0]), losses.supervised_contrastive

    def by_hand(i, kept=range(6)):
        others = [j for j in kept if j != i]
        logs = np.log(sum(np.exp(a[i] @ b[j] / 0.5) for j in others))
        same = [logs - a[i] @ b[j] / 0.5 for j in others if labels[j] == labels[i]]
        return np.mean(same) if same else 0

    found = loss(a, labels, others=b, temperature=0.5, rows=jnp.array([2, 3, 5]))
    np.testing.assert_allclose(found, [by_hand(2), 0, by_hand(5)], rtol=1e-12)
    kept = [0, 1, 2, 5]
    spoilt, where = jnp.asarray(a).at[jnp.array([3, 4])].set(jnp.nan), np.isin(np.arange(6), kept)
    found = loss(spoilt, labels, others=b, temperature=0.5, where=jnp.asarray(where))
    expected = [by_hand(i, kept) if i in kept else 0 for i in range(6)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    both = lambda a, b: loss(a, labels, others=b)  # noqa: E731
    check_grads(both, [jnp.asarray(a), jnp.asarray(b)], order=1, modes=["rev"], rtol=1e-5)
    alone = jax.grad(lambda a: jnp.sum(loss(a, labels[:1])))(jnp.asarray(a[:1]))
    assert not np.any(alone)


def test_bad_input_is_named():
    a = jnp.zeros((2, 3))
    with pytest.raises(ValueError, match=r"features \(2,\), target_features \(3,\)"):
        losses.similarity_preserving(a, jnp.zeros((3, 3)))
    with pytest.raises(ValueError, match="features needs at least 2 dimensions"):
        losses.relational_angle(a[0], a)
    with pytest.raises(TypeError, match="floating-point"):
        losses.probabilistic_transfer(a > 0, a)
    with pytest.raises(TypeError, match="boolean"):
        losses.relational_distance(a, a, where=jnp.ones(2))
    with pytest.raises(TypeError, match="rows must be integers"):
        losses.relational_angle(a, a, rows=jnp.ones(2))
    labels = jnp.zeros(2, int)
    with pytest.raises(ValueError, match="temperature=0 must be finite, greater than 0"):
        losses.supervised_contrastive(a, labels, temperature=0)
    with pytest.raises(ValueError, match=r"integers of shape \(2,\), got int32 of shape \(3,\)"):
        losses.supervised_contrastive(a, jnp.zeros(3, int))
    with pytest.raises(TypeError, match="labels must be integers"):
        losses.supervised_contrastive(a, labels > 0)
    with pytest.raises(ValueError, match="labels must fit into 32 bits, got 4294967303"):
        losses.supervised_contrastive(a, np.array([7, 7 + 2**32]))


def test_opposite_examples_are_no_neighbours():
    """A cosine of -1 may round to less."""
    x = jnp.asarray(RNG.normal(size=(3000, 1, 16)), jnp.float32)
    pairs = jnp.concatenate([x, -x], axis=1)
    found = jax.jit(jax.vmap(losses.probabilistic_transfer))(pairs, jnp.abs(pairs))
    assert np.all(np.isfinite(found))


def test_distances_far_from_the_origin():
    """Of features whose mean is a thousand times their spread, by shift invariance."""
    x, y = (RNG.normal(size=(16, 8)).astype(np.float32) for _ in range(2))
    near = losses.relational_distance(x, y)
    shift = np.float32(1000)
    exact = losses.relational_distance((x + shift) - shift, (y + shift) - shift)
    far = losses.relational_distance(x + shift, y + shift)
    np.testing.assert_allclose(far, exact, rtol=1e-3)
    np.testing.assert_allclose(far, near, rtol=2e-2)


@pytest.mark.parametrize("row", [-1, 5])
def test_a_row_that_is_not_there_is_refused(row):
    with pytest.raises(ValueError, match=rf"rows must be in \[0, 5\), got {row}"):
        losses.similarity_preserving(A, B, rows=np.array([2, row]))


@pytest.mark.parametrize("name", EACH)
def test_a_traced_row_that_is_not_there_is_nan(name):
    loss = getattr(losses, name)
    found = jax.jit(lambda rows: loss(A, B, rows=rows))(jnp.array([4, -1, 5, 0]))
    own = np.asarray(loss(A, B))
    np.testing.assert_allclose(found, [own[4], np.nan, np.nan, own[0]], rtol=1e-5)
