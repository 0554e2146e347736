"""Losses against PyTorch (experiments/reference/losses.py) and against their own promises."""

import inspect
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from afd_jax import losses

pytestmark = pytest.mark.usefixtures("strict")

REFERENCE = json.loads(
    (pathlib.Path(__file__).parents[1] / "reference" / "losses.json").read_text()
)
CASES = REFERENCE["losses"]
NAMES = sorted({case["name"] for case in CASES})


def call(case):
    """The loss of a case as a function of its differentiable inputs, gradients to all of them."""
    function, options = getattr(losses, case["name"]), dict(case["options"])
    if "stop_target_gradient" in inspect.signature(function).parameters:
        options["stop_target_gradient"] = False
    labels = [jnp.asarray(case["labels"], jnp.int32)] if "labels" in case else []
    return lambda *inputs, **more: function(*inputs, *labels, **options, **more)


def test_every_loss_has_a_reference():
    similarity = {"cka_ratio", "linear_cka", "linear_hsic"}  # see test_similarity.py
    no_losses = {"label_distribution", "mean", "ramp_up_weight", *similarity}
    assert sorted(set(losses.__all__) - no_losses) == NAMES


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_value_and_gradient_equal_pytorch(case, double):
    function = jax.jit(call(case))
    inputs = [jnp.asarray(x) for x in case["inputs"]]
    np.testing.assert_allclose(function(*inputs), case["values"], rtol=1e-12, atol=1e-15)
    weights = jnp.arange(1.0, 5.0)
    every = tuple(range(len(inputs)))
    gradients = jax.grad(lambda *x: jnp.sum(weights * function(*x)), every)(*inputs)
    for ours, theirs in zip(gradients, case["gradients"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_batch_is_stacked_examples_and_mask_is_slice(case):
    function = call(case)
    inputs = [jnp.asarray(x, jnp.float32) for x in case["inputs"]]
    values = function(*inputs)
    assert values.shape == (4,) and values.dtype == jnp.float32
    if "labels" not in case:
        single = [function(*(x[i : i + 1] for x in inputs))[0] for i in range(4)]
        np.testing.assert_allclose(values, jnp.stack(single), rtol=1e-6)

    where = jnp.array([True, False, True, False])
    spoilt = [x.at[1].set(jnp.nan).at[3].set(jnp.inf) for x in inputs]
    np.testing.assert_allclose(function(*spoilt, where=where), jnp.where(where, values, 0))
    total = jax.grad(lambda *x: losses.mean(function(*x, where=where), where), argnums=0)
    gradient, whole = total(*spoilt), jax.grad(lambda *x: jnp.sum(function(*x)))(*inputs)
    assert not np.any(gradient[1]) and not np.any(gradient[3])
    np.testing.assert_allclose(gradient[::2], whole[::2] / 2, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_half_precision_is_upcast(case):
    inputs = [jnp.asarray(x, jnp.bfloat16) for x in case["inputs"]]
    values = call(case)(*inputs)
    assert values.dtype == jnp.float32
    np.testing.assert_array_equal(values, call(case)(*(x.astype(jnp.float32) for x in inputs)))


@pytest.mark.parametrize(
    "name", ["distillation_kl", "bce_discriminator", "normalized_l1_alignment"]
)
def test_gradients_agree_with_finite_differences(name, double):
    case = next(c for c in CASES if c["name"] == name)
    check_grads(call(case), [jnp.asarray(x) for x in case["inputs"]], order=1, rtol=1e-5)


def test_extreme_logits_are_finite():
    z = jnp.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]])
    labels = jnp.array([1, 1])

    def total(z, target):
        kl = losses.distillation_kl(z, target, temperature=0.5, stop_target_gradient=False)
        return jnp.sum(kl + losses.cross_entropy(z, labels))

    value, gradients = jax.value_and_grad(total, (0, 1))(z, z[::-1])
    assert np.isfinite(value) and all(np.all(np.isfinite(g)) for g in gradients)
    for loss in (losses.bce_generator, losses.least_squares_generator):
        score = jnp.array([1e4, -1e4, 0.0])
        assert np.all(np.isfinite(jax.grad(lambda s, f=loss: jnp.sum(f(s)))(score)))
    zeros = jnp.zeros((2, 3))
    assert np.all(np.isfinite(jax.grad(lambda a: losses.cosine_distance(a, z[:2])[0])(zeros)))


def test_t_squared_keeps_the_gradient_size():
    z, target = jnp.array([[0.01, 0.0, -0.01]]), jnp.array([[0.0, 0.01, 0.0]])

    def norm(temperature):
        loss = lambda z: losses.distillation_kl(z, target, temperature=temperature)[0]  # noqa: E731
        return jnp.linalg.norm(jax.grad(loss)(z))

    np.testing.assert_allclose(norm(10.0), norm(1.0), rtol=0.02)


@pytest.mark.parametrize("name", ["distillation_kl", "l1_alignment", "soft_cross_entropy"])
def test_the_target_is_a_constant_unless_asked(name):
    function = getattr(losses, name)
    a, b = jnp.ones((2, 3)), jnp.arange(6.0).reshape(2, 3)
    assert not np.any(jax.grad(lambda b: jnp.sum(function(a, b)))(b))
    free = jax.grad(lambda b: jnp.sum(function(a, b, stop_target_gradient=False)))(b)
    assert np.any(free)


def test_feed_ignores_scale_and_is_bounded():
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=(4, 3, 3, 2)), jnp.float32) for _ in range(2))
    loss = losses.normalized_l1_alignment
    np.testing.assert_allclose(loss(3 * a, 1e-20 * b), loss(a, b), rtol=1e-5)
    np.testing.assert_allclose(loss(a, 7 * a), 0, atol=1e-5)
    assert np.all(loss(a, a.at[:, 0, 0, 0].add(0.1)) > 1e-3)
    assert np.all(loss(a, -a) <= 2 * np.sqrt(18) + 1e-5)
    np.testing.assert_allclose(loss(jnp.ones((1, 18)), -jnp.ones((1, 18))), 2 * np.sqrt(18), 1e-6)


def test_the_virtual_teacher_is_sure_of_the_label():
    given = losses.label_distribution(jnp.array([2, 0]), 4, correct=0.91)
    rest = 0.09 / 3
    expected = [[rest, rest, 0.91, rest], [0.91, rest, rest, rest]]
    np.testing.assert_allclose(given, expected, rtol=1e-6)


Z = jnp.zeros((2, 3))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: losses.distillation_kl(Z, Z, temperature=0), ValueError, "temperature=0"),
        (lambda: losses.distillation_kl(Z, Z, temperature=float("nan")), ValueError, "temperature"),
        (lambda: losses.distillation_kl(Z, Z[:1]), ValueError, r"\(2, 3\), target_logits \(1, 3\)"),
        (lambda: losses.cross_entropy(Z, Z > 0), TypeError, "labels must be integers"),
        (
            lambda: losses.cross_entropy(Z, jnp.zeros(3, int)),
            ValueError,
            r"labels need shape \(2,\)",
        ),
        (lambda: losses.cross_entropy(Z.astype(int), jnp.zeros(2, int)), TypeError, "floating"),
        (
            lambda: losses.cross_entropy(Z, jnp.zeros(2, int), label_smoothing=1.0),
            ValueError,
            "label_smoothing=1.0",
        ),
        (lambda: losses.l1_alignment(Z, Z[:, :2]), ValueError, "shapes must be equal"),
        (lambda: losses.hinge_discriminator(Z[:, 0], Z[:1, 0]), ValueError, "one batch size"),
        (lambda: losses.l1_alignment(Z, Z, where=jnp.ones(2)), TypeError, "boolean"),
        (lambda: losses.l1_alignment(Z, Z, where=jnp.ones(3, bool)), ValueError, "one per example"),
        (lambda: losses.attention_alignment(Z, Z), ValueError, "at least 4 dimensions"),
        (lambda: losses.label_distribution(Z > 0, 3, correct=0.5), TypeError, "must be integers"),
        (lambda: losses.label_distribution(Z, 4, correct=0.5), ValueError, r"need shape \(2, 4\)"),
        (
            lambda: losses.label_distribution(jnp.zeros(1, int), 3, correct=2),
            ValueError,
            r"correct=2 must be in \[0, 1\]",
        ),
        (lambda: losses.bce_generator(jnp.float32(0.0)), ValueError, "at least 1 dimensions"),
    ],
)
def test_bad_input_is_named(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_mean_of_nothing_is_zero():
    assert losses.mean(jnp.ones(3), where=jnp.zeros(3, bool)) == 0


def test_losses_alone_in_a_plain_jax_loop():
    """A colleague's program: only jax and the losses; Flax, Optax and the rest stay unloaded."""
    program = """
import sys, jax, jax.numpy as jnp
from afd_jax.losses import cross_entropy, distillation_kl, mean
x = jax.random.normal(jax.random.key(0), (64, 8))
labels = jnp.argmax(x[:, :3], axis=1)
teacher = 5 * x[:, :3]
def loss(w):
    z = x @ w
    return mean(cross_entropy(z, labels) + distillation_kl(z, teacher, temperature=3.0))
w = jnp.zeros((8, 3))
step = jax.jit(lambda w: w - 0.1 * jax.grad(loss)(w))
first = loss(w)
for _ in range(50):
    w = step(w)
assert loss(w) < first / 4, (first, loss(w))
heavy = {"flax", "optax", "orbax", "tensorflow_datasets", "sklearn", "ml_collections"}
assert not heavy & {name.split(".")[0] for name in sys.modules}, heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
