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
from tests.losses.test_relations import EACH as RELATIONS

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
    apart = {"standardize", "supervised_contrastive"}  # see test_relations.py
    no_losses = {"label_distribution", "mean", "ramp_up_weight", *apart, *similarity, *RELATIONS}
    assert sorted(set(losses.__all__) - no_losses) == NAMES


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["name"])
def test_value_and_gradient_equal_pytorch(case, double):
    function = jax.jit(call(case))
    inputs = [jnp.asarray(x) for x in case["inputs"]]
    np.testing.assert_allclose(function(*inputs), case["values"], rtol=1e-12, atol=1e-14)
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
    "name",
    [
        "distillation_kl",
        "bce_discriminator",
        "normalized_l1_alignment",
        "other_classes_kl",
        "target_class_kl",
        "correlation_distance",
    ],
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


def test_a_class_left_out_counts_for_nothing():
    """Logits of -inf: the losses and gradients are those without the class."""
    z, target = jnp.array([[0.5, -1.0, 2.0], [1.0, 0.0, -2.0]]), jnp.array([[1.0, 0, 3], [0, 2, 1]])
    labels, probs = jnp.array([2, 0]), jnp.array([[0.3, 0.7], [0.6, 0.4]])

    def without(loss, classes, fill):
        def total(z, target):
            pad = ((0, 0), (0, classes - 3))
            z, target = (jnp.pad(x, pad, constant_values=-jnp.inf) for x in (z, target))
            return jnp.sum(loss(z, target, jnp.pad(fill, pad)))

        return jax.value_and_grad(total, (0, 1))(z, target)

    fill = jnp.stack([probs[:, 0], probs[:, 1], jnp.zeros(2)], axis=1)
    for loss in (
        lambda z, target, q: losses.cross_entropy(z, labels, label_smoothing=0.1),
        lambda z, target, q: losses.cross_entropy(z, q),
        lambda z, target, q: losses.soft_cross_entropy(z, q, stop_target_gradient=False),
        lambda z, target, q: losses.distillation_kl(
            z, target, temperature=2.0, stop_target_gradient=False
        ),
    ):
        for ours, expected in zip(
            jax.tree.leaves(without(loss, 5, fill)),
            jax.tree.leaves(without(loss, 3, fill)),
            strict=True,
        ):
            np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-7)
    # What the target alone leaves out has no share of it.
    kl = jax.value_and_grad(lambda z: losses.distillation_kl(z, -jnp.inf * z.at[0].set(1))[0])
    assert not np.isfinite(kl(z[:1])[0])  # a target without any class says nothing
    one = target.at[:, 1].set(-jnp.inf)
    value, gradient = jax.value_and_grad(lambda z: jnp.sum(losses.distillation_kl(z, one)))(z)
    p = np.exp(np.asarray(one)) / np.exp(np.asarray(one)).sum(1, keepdims=True)
    log_q = np.asarray(z) - np.log(np.exp(np.asarray(z)).sum(1, keepdims=True))
    by_hand = np.sum(p[:, [0, 2]] * (np.log(p[:, [0, 2]]) - log_q[:, [0, 2]]))
    np.testing.assert_allclose(value, by_hand, rtol=1e-5)
    np.testing.assert_allclose(gradient, np.exp(log_q) - p, atol=1e-6)


@pytest.mark.parametrize("label", [-1, 3, 2**31 - 1])
def test_a_label_out_of_range_is_an_error_or_nan_never_another_class(label):
    labels = jnp.array([0, label])
    each = {
        "cross_entropy": lambda labels: losses.cross_entropy(Z, labels),
        "label_distribution": lambda labels: losses.label_distribution(labels, 3, correct=0.9),
        "target_class_kl": lambda labels: losses.target_class_kl(Z, Z, labels),
        "other_classes_kl": lambda labels: losses.other_classes_kl(Z, Z, labels),
    }
    for loss in each.values():
        with pytest.raises(ValueError, match=rf"in \[0, 3\), got {label} at place 1"):
            loss(labels)
        first, second = jax.jit(loss)(labels)
        assert np.all(np.isfinite(first)) and np.all(np.isnan(second))
    total = jax.jit(jax.grad(lambda z, labels: jnp.sum(losses.cross_entropy(z, labels))))
    gradient = total(Z, labels)
    assert np.all(np.isfinite(gradient[0])) and np.all(np.isnan(gradient[1]))
    masked = losses.cross_entropy(Z, labels, where=jnp.array([True, False]))
    np.testing.assert_allclose(masked, [np.log(3), 0], rtol=1e-6)


def test_soft_labels_in_half_precision_keep_their_digits():
    soft = jax.nn.softmax(jnp.arange(100.0)[None] / 50).astype(jnp.bfloat16)
    found = losses.label_distribution(soft, 100, correct=0.9)
    expected = np.asarray(soft, np.float64) * 0.9 + (1 - np.asarray(soft, np.float64)) * 0.1 / 99
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_temperature_for_each_example_is_not_one_for_each_class():
    z = jnp.array([[1.0, 0, -1], [2.0, 1, 0], [0.0, 3, 1]])
    each = jnp.array([1.0, 2.0, 4.0])
    found = losses.distillation_kl(z, z[::-1], temperature=each)
    alone = [
        losses.distillation_kl(z, z[::-1], temperature=float(t))[i] for i, t in enumerate(each)
    ]
    np.testing.assert_allclose(found, alone, rtol=1e-6)
    unscaled = losses.distillation_kl(z, z[::-1], temperature=each, scale_by_t_squared=False)
    np.testing.assert_allclose(found, unscaled * each**2, rtol=1e-6)


@pytest.mark.parametrize("kind", [jnp.int8, jnp.int32, jnp.float16])
def test_a_narrow_temperature_has_a_square(kind):
    z = jnp.array([[1.0, 0, -1], [2.0, 1, 0]])
    expected = losses.distillation_kl(z, z[::-1], temperature=100.0)
    with jax.numpy_dtype_promotion("strict"):
        for temperature in (kind(100), np.full(2, 100, kind)):
            found = losses.distillation_kl(z, z[::-1], temperature=temperature)
            np.testing.assert_allclose(found, expected, rtol=1e-6)
            assert found.dtype == jnp.float32


def test_t_squared_keeps_the_gradient_size():
    z, target = jnp.array([[0.01, 0.0, -0.01]]), jnp.array([[0.0, 0.01, 0.0]])

    def norm(temperature):
        loss = lambda z: losses.distillation_kl(z, target, temperature=temperature)[0]  # noqa: E731
        return jnp.linalg.norm(jax.grad(loss)(z))

    np.testing.assert_allclose(norm(10.0), norm(1.0), rtol=0.02)


@pytest.mark.parametrize("name", ["l1_alignment", "normalized_l1_alignment"])
def test_equal_elements_get_no_gradient(name):
    maps = jnp.arange(8.0).reshape(2, 4)
    assert not np.any(jax.grad(lambda x: jnp.sum(getattr(losses, name)(x, maps)))(maps))


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
            lambda: losses.label_distribution(jnp.eye(3, dtype=int), 3, correct=0.5),
            ValueError,
            r"labels need shape \[batch\], got \(3, 3\)",
        ),
        (
            lambda: losses.label_distribution(jnp.zeros(1, int), 3, correct=2),
            ValueError,
            "correct=2 must be finite, at least 0, at most 1",
        ),
        (lambda: losses.bce_generator(jnp.float32(0.0)), ValueError, "at least 1 dimensions"),
        (lambda: losses.bce_generator(jnp.zeros(0)), ValueError, r"empty, got shape \(0,\)"),
        (lambda: losses.distillation_kl(Z[:0], Z[:0]), ValueError, r"empty, got shape \(0, 3\)"),
        (lambda: losses.mean(jnp.zeros(0)), ValueError, "values must not be empty"),
        (lambda: losses.mean(Z[:, 0], where=jnp.ones(2)), TypeError, "where must be boolean"),
        (lambda: losses.mean(Z[:, 0], where=jnp.ones(1, bool)), ValueError, r"where needs shape"),
        (
            lambda: losses.distillation_kl(Z, Z, temperature=np.float32(-1)),
            ValueError,
            "temperature=-1.0 must be finite, greater than 0",
        ),
        (
            lambda: losses.distillation_kl(Z, Z, temperature=jnp.zeros(())),
            ValueError,
            "temperature=0.0",
        ),
        (
            lambda: losses.distillation_kl(Z, Z, temperature=jnp.ones(3)),
            ValueError,
            r"temperature must be a number or \[2\], got shape \(3,\)",
        ),
        (lambda: losses.distillation_kl(Z, Z, temperature="3"), TypeError, "temperature must be"),
        (lambda: losses.distillation_kl(Z, Z, temperature=True), TypeError, "temperature must be"),
        (
            lambda: losses.cross_entropy(Z, jnp.zeros(2, int), label_smoothing=np.float64(1.5)),
            ValueError,
            "label_smoothing=1.5 must be finite, at least 0, less than 1",
        ),
        (
            lambda: losses.ramp_up_weight(0.5, length=np.array(0.0)),
            ValueError,
            "length=0.0 must be finite, greater than 0",
        ),
        (
            lambda: losses.ramp_up_weight(jnp.zeros(2), length=jnp.ones(2)),
            ValueError,
            "length must be a number, got shape",
        ),
    ],
)
def test_bad_input_is_named(make, error, words):
    with pytest.raises(error, match=words):
        make()


@pytest.mark.parametrize(
    "call",
    [
        lambda z: losses.cross_entropy(z, jnp.zeros((2, 3), int)),
        lambda z: losses.soft_cross_entropy(z, z),
        lambda z: losses.distillation_kl(z, z, temperature=2.0),
        losses.standardize,
        lambda z: losses.correlation_distance(z, z),
        lambda z: losses.target_class_kl(z, z, jnp.zeros((2, 3), int), temperature=2.0),
    ],
)
def test_logits_for_each_position_are_refused(call):
    """Their mean over a batch would be a sum over positions."""
    with pytest.raises(ValueError, match=r"needs 2 dimensions, got shape \(2, 3, 4\)"):
        call(jnp.zeros((2, 3, 4)))


def test_a_table_in_place_of_a_number_is_refused_in_a_line():
    with pytest.raises(ValueError, match="eps must be a number, got shape") as caught:
        losses.standardize(jnp.zeros((4, 3)), eps=jnp.ones((4, 1), bool))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("classes, kind", [(256, np.uint8), (1000, np.uint8), (200, np.int8)])
def test_labels_of_few_bits_know_all_classes(classes, kind):
    """The number of classes may not fit into the labels' type."""
    rng = np.random.default_rng(0)
    z, t = (rng.normal(size=(3, classes)).astype(np.float32) for _ in range(2))
    narrow = np.array([0, 5, 127], kind)
    for loss in (
        losses.cross_entropy,
        lambda z, y: losses.other_classes_kl(z, t, y),
        lambda z, y: losses.target_class_kl(z, t, y),
        lambda z, y: losses.label_distribution(y, classes, correct=0.9),
    ):
        expected = loss(z, narrow.astype(np.int32))
        for found in (loss(z, narrow), jax.jit(loss)(z, narrow)):
            np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("masked", [-500.0, -1e9])
def test_a_class_that_both_sides_leave_out_each_in_its_way(masked):
    """One by -inf, the other by a logit so low that its probability underflows."""
    z, t, y = jnp.array([[0.0, 1.0, -jnp.inf]]), jnp.array([[0.5, 1.0, masked]]), jnp.array([0])
    whole = jnp.array([[0.5, 1.0, -jnp.inf]])
    for loss in (losses.distillation_kl, lambda z, t: losses.other_classes_kl(z, t, y)):
        assert loss(z, t) == loss(z, whole)
        gradient = jax.grad(lambda z, loss=loss: loss(z, t)[0])(z)
        assert np.all(np.isfinite(gradient)) and gradient[0, 2] == 0


def test_a_number_of_numpy_does_not_set_the_type(double):
    z = jnp.zeros((2, 3), jnp.float32)
    found = losses.distillation_kl(z, z, temperature=np.float64(3))
    assert found.dtype == jnp.float32


@pytest.mark.parametrize("kind", [jnp.float16, jnp.bfloat16])
def test_the_mean_of_many_halves(kind):
    ones = jnp.ones(70_000, kind)
    assert losses.mean(ones, where=jnp.ones(70_000, bool)) == losses.mean(ones) == 1


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
