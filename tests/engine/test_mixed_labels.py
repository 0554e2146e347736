"""Soft labels through the losses, every method and the step; mixing over devices; averages."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from afd_jax import losses, methods
from afd_jax.data import Recipe
from afd_jax.data.mix import Mix
from afd_jax.engine import parts
from afd_jax.engine.devices import make_devices
from afd_jax.engine.inputs import keys_of
from afd_jax.engine.step import train_step
from afd_jax.errors import SettingError
from afd_jax.methods.kdcl import TARGETS
from tests import small, tiny

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(6, 5))
HARD = RNG.integers(5, size=6)
SOFT = RNG.dirichlet(np.ones(5), size=6)
ONE_HOT = np.eye(5, dtype=np.float32)[HARD]
RUN = {"total_steps": 4, "steps_per_epoch": 2, "examples": 1000}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_probabilities_equals_numpy(smoothing):
    target = (1 - smoothing) * SOFT + smoothing / 5
    expected = -np.sum(target * log_softmax(Z, axis=-1), axis=-1)
    found = losses.cross_entropy(
        jnp.asarray(Z), jnp.asarray(SOFT, jnp.float32), label_smoothing=smoothing
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    mask = np.arange(6) % 2 == 0
    labels = np.where(mask[:, None], SOFT, np.nan)
    found = losses.cross_entropy(jnp.asarray(Z), jnp.asarray(labels, jnp.float32), where=mask)
    np.testing.assert_allclose(found[mask], -np.sum(SOFT * log_softmax(Z, -1), -1)[mask], rtol=1e-5)
    np.testing.assert_array_equal(found[~mask], 0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_pytorch(smoothing):
    torch = pytest.importorskip("torch")
    z, soft = torch.tensor(Z), torch.tensor(SOFT)
    for labels, theirs in ((SOFT.astype(np.float32), soft), (HARD, torch.tensor(HARD))):
        options = {"reduction": "none", "label_smoothing": smoothing}
        expected = torch.nn.functional.cross_entropy(z, theirs, **options)
        found = losses.cross_entropy(jnp.asarray(Z), jnp.asarray(labels), label_smoothing=smoothing)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_one_hot_soft_label_is_exactly_the_hard_one():
    def loss(z, labels):
        return jnp.sum(losses.cross_entropy(z, labels))

    z = jnp.asarray(Z, jnp.float32)
    values = [jax.value_and_grad(loss)(z, labels) for labels in (jnp.asarray(HARD), ONE_HOT)]
    jax.tree.map(np.testing.assert_array_equal, *values)
    extreme = jnp.array([[1e4, -1e4, 0, 0, 0]])
    assert np.all(np.isfinite(jax.grad(loss)(extreme, jnp.asarray(SOFT[:1], jnp.float32))))
    pair = (losses.label_distribution(y, 5, correct=0.9) for y in (jnp.asarray(HARD), ONE_HOT))
    np.testing.assert_allclose(*pair, rtol=1e-6)
    logits = jnp.asarray(RNG.normal(size=(3, 6, 5)), jnp.float32)
    for make in TARGETS.values():
        np.testing.assert_allclose(
            make(logits, jnp.asarray(HARD)), make(logits, jnp.asarray(ONE_HOT)), atol=1e-6
        )


def test_labels_of_no_use_are_named():
    with pytest.raises(TypeError, match="labels must be integers or probabilities, got bool"):
        losses.cross_entropy(jnp.asarray(Z), jnp.zeros((6, 5), bool))
    with pytest.raises(ValueError, match=r"float32 labels need shape \(6, 5\), got \(6, 4\)"):
        losses.cross_entropy(jnp.asarray(Z), jnp.zeros((6, 4)))
    with pytest.raises(SettingError, match=r"batch.soft_label = \(16, 4\): must be prob"):
        small.cohort().step(None, {**small.batch(), "soft_label": np.zeros((16, 4))})


@functools.cache
def cohort(name, smoothing=0.0):
    """A method on the smallest networks that it takes."""
    method = methods.find(name)
    taught = bool(method.teachers[0])
    cut = name in ("one", "cl_ilr", "okddip", "pcl")
    options = {"critic": {"widths": (4, 6)}} if name == "afd" else {}
    if name == "mixed":
        options["by_edge"] = (("a", "b", "dml"), ("b", "a", "dml"))
    if cut:
        options["branches"] = 2
    widths = small.EQUAL[:1] if cut or taught or not method.peers else small.EQUAL
    more = {"teachers": {"teacher": tiny.Stages(5, widths=(3, 4, 5))}} if taught else {}
    made = methods.make(name, options)
    return small.cohort(widths, method=made, label_smoothing=smoothing, **RUN, **more)


def losses_of(of, batch):
    terms = jax.jit(functools.partial(parts.losses, of.plan))(small.begin(of), batch)
    return jax.tree.map(np.asarray, terms)


WHOLE = ("crd", "cs_kd", "dkd", "ps_kd")  # they need whole images
NAMES = methods.NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_method_learns_from_mixed_labels(name):
    own = cohort(name)
    assert (own.plan.method.whole_images is not None) == (name in WHOLE)
    batch = small.batch()
    if own.plan.method.pairs:
        batch |= {"partner_image": batch["image"][::-1], "partner": batch["index"][::-1]}
    mix = None if name in WHOLE else Mix(mixup=1.0, cutmix=1.0)
    state, metrics = small.step_of(own, mix=mix)(small.begin(own), batch)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((state.networks, metrics)))
    soft = np.random.default_rng(1).dirichlet(np.ones(5), size=16).astype(np.float32)
    hard, mixed = losses_of(own, batch), losses_of(own, {**batch, "soft_label": soft})
    for node, terms in hard.items():
        assert np.all(terms.logit["cross_entropy"] != mixed[node].logit["cross_entropy"]), node


@pytest.mark.parametrize("name", NAMES)
def test_label_smoothing_is_in_every_cross_entropy(name):
    """Each node's own, up to the method's weight of it, is PyTorch's formula of its logits."""
    plain, own = cohort(name), cohort(name, 0.1)
    batch = small.batch()
    if own.plan.method.pairs:
        batch |= {"partner_image": batch["image"][::-1], "partner": batch["index"][::-1]}
    hard, found = losses_of(plain, batch), losses_of(own, batch)
    outputs = jax.jit(functools.partial(parts.forward, own.plan))(small.begin(own), batch)
    for node, terms in found.items():
        log_probs = log_softmax(np.asarray(outputs[node].logits, np.float64), axis=-1)
        hit = -log_probs[np.arange(16), batch["label"]]
        weight = np.median(hard[node].logit["cross_entropy"] / hit)
        expected = weight * (0.9 * hit - 0.1 * log_probs.mean(-1))
        np.testing.assert_allclose(terms.logit["cross_entropy"], expected, rtol=1e-3)


def share(rng, height, width):
    """Something to recognise in the place of a mix: the left third is the image's own."""
    return jnp.ones((height, 1)) * (jnp.arange(width) < width // 3)[None]


@pytest.mark.parametrize("own_augmentation", [False, True])
def test_images_and_labels_are_mixed_with_those_opposite(own_augmentation, monkeypatch):
    """The step on a batch equals the one on a batch that was mixed by hand."""
    own = small.cohort(method=methods.DML(), own_augmentation=own_augmentation, twins=True)
    batch = small.batch()
    found = small.step_of(own, mix=share)(small.begin(own), batch)
    part = 2 / 8
    x, y = np.asarray(batch["image"]), np.eye(5)[batch["label"]]
    by_hand = {
        **batch,
        "image": jnp.concatenate([x[:, :, :2], x[::-1, :, 2:]], axis=2),
        "soft_label": jnp.asarray(part * y + (1 - part) * y[::-1], jnp.float32),
        "label": batch["label"][::-1],  # which has the larger share
    }
    expected = small.step_of(own)(small.begin(own), by_hand)
    assert small.largest_difference(found, expected) < 1e-5
    unmixed = small.step_of(own)(small.begin(own), batch)
    assert small.largest_difference(found[0].networks, unmixed[0].networks) > 1e-3


RECIPE = Recipe(
    mean=(0.5, 0.4),
    std=(0.2, 0.3),
    pad=2,
    flip=True,
    trivial_augment=True,
    erase=0.5,
    mixup=1.0,
    cutmix=1.0,
)


@pytest.mark.parametrize("mode", ["pmap", "shard_map", "jit"])
def test_mixing_on_eight_devices_equals_one(mode):
    own, found = small.cohort(method=methods.DML(), averages=True, label_smoothing=0.1), []
    rng = np.random.default_rng(0)
    batches = [
        {
            "image": rng.integers(256, size=(16, *small.IMAGE_SHAPE), dtype=np.uint8),
            "label": rng.integers(5, size=16, dtype=np.int32),
            "index": rng.permutation(99)[:16].astype(np.int32),
        }
        for _ in range(3)
    ]
    for how in ((mode, 8), ("jit", 1)):
        devices = make_devices(*how)
        step = functools.partial(
            train_step,
            devices.prepare(own.plan),
            preprocess=RECIPE.train,
            mix=RECIPE.mix,
            detailed=False,
        )
        compiled = devices.compile(step, donate=True)
        state = devices.put_state(small.begin(own))
        for batch in batches:
            state, metrics = compiled(state, devices.put_batch(batch))
        found.append(jax.device_get((state.networks, metrics)))
    networks = [{n: (s.params, s.statistics) for n, s in each[0].items()} for each in found]
    assert small.largest_difference(*networks) < 1e-5
    assert small.largest_difference(found[0][1], found[1][1]) < 1e-4


def test_the_mix_is_drawn_anew_in_every_step():
    own = small.cohort(method=methods.DML())
    state = small.begin(own)
    keys = [keys_of(state.replace(step=jnp.int32(n)))[0] for n in (0, 1, 0)]
    shares = [float(jnp.mean(Mix(mixup=1.0)(key, 8, 8))) for key in keys]
    assert shares[0] == shares[2] != shares[1]


def test_averages_follow_students_of_any_method():
    own = small.cohort(method=methods.DML(), averages=True, average_decay=0.5)
    assert own.graph.with_role("average") == ("average of a", "average of b")
    first = small.begin(own)
    after, _ = small.update(own, 2, first)
    once, _ = small.update(own, 1, first)
    half = jax.tree.map(  # the first decay is 1 - 1/2, then 1/2 is the most
        lambda x, y, z: 0.5 * (0.5 * x + 0.5 * y) + 0.5 * z,
        *(s.networks["a"].params["network"] for s in (first, once, after)),
    )
    assert small.largest_difference(after.networks["average of a"].params["network"], half) < 1e-5
    alone, _ = small.update(small.cohort(method=methods.DML()), 2)
    for name in "ab":
        found = after.networks[name].params, alone.networks[name].params
        assert small.largest_difference(*found) < 1e-6
