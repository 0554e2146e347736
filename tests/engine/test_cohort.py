"""The object that people hold: what it takes, and its parts beside its step."""

import copy
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from afd_jax.data import Recipe
from afd_jax.engine.cohort import Cohort
from afd_jax.engine.step import train_step
from afd_jax.errors import SettingError
from afd_jax.graph import Node
from afd_jax.methods import (
    AFD,
    AIKD,
    CSKD,
    DCM,
    DML,
    FT,
    KD,
    KDCL,
    MCL,
    ONE,
    PCL,
    PSKD,
    Independent,
)
from afd_jax.methods.method import UPDATES
from afd_jax.networks.outputs import Outputs
from afd_jax.runs.trained import TrainedNetwork
from tests import small, tiny
from tests.leaves import changed

CASES = {
    "afd": {"widths": small.UNEQUAL},
    "one": {"widths": [(3, 4, 5)], "method": ONE(branches=2, ramp_up=0.5), "total_steps": 4},
}


@pytest.mark.parametrize("case", CASES)
def test_the_step_is_what_losses_and_gradients_say(case):
    """Means of losses are metrics; with plain SGD parameters move by rate times gradient."""
    cohort = small.cohort(opt=small.adjustable(), **CASES[case])
    rates = {"logit": 0.3, "feature": 0.2, "discriminator": 0.1}
    state = small.with_rates(small.begin(cohort), **rates).replace(step=jnp.int32(1))
    batch = small.batch()
    outputs, terms = cohort.forward(state, batch), cohort.losses(state, batch)
    gradients = cohort.gradients(state, batch)
    after, metrics = cohort.step(state, batch)

    for node, own in terms.items():
        losses = {
            f"loss/{name}": np.mean(values)
            for update in UPDATES
            for name, values in getattr(own, update).items()
        }
        assert {name for name in metrics[node] if name.startswith("loss/")} == set(losses)
        for name, mean in {**losses, **{n: np.mean(v) for n, v in own.metrics.items()}}.items():
            np.testing.assert_allclose(metrics[node][name], mean, rtol=1e-5, err_msg=name)
        assert all(v.shape == (16,) for v in own.logit.values())
        accuracy = np.mean(np.argmax(outputs[node].logits, axis=1) == batch["label"])
        np.testing.assert_allclose(metrics[node]["accuracy"], accuracy, rtol=1e-6)
    for name, own in gradients.items():
        moved = state.networks[name].params
        for update, gradient in own.items():
            moved = jax.tree.map(lambda x, g, r=rates[update]: x - r * g, moved, gradient)
            norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gradient)))
            first = cohort.plan.networks[name].nodes[0]
            np.testing.assert_allclose(metrics[first][f"gradient_norm/{update}"], norm, rtol=1e-4)
        assert small.largest_difference(after.networks[name].params, moved) < 1e-5
        assert changed(state.networks[name].params, after.networks[name].params)
    assert terms.keys() == set(cohort.graph.learners) and int(state.step) == 1  # not donated


def test_networks_are_names_modules_or_both_and_get_names():
    own = functools.partial(tiny.InNNX, classes=5)
    networks = ["tests.tiny:Tiny", tiny.Tiny(5, channels=3), own, tiny.Stages(5)]
    cohort = Cohort(networks, DML(), **small.SHAPES)
    assert cohort.graph.names == ("Tiny", "Tiny_1", "InNNX", "Stages")
    assert cohort.plan.networks["Tiny"].module.module == tiny.Tiny(5)
    assert len(cohort.graph.edges) == 12 and "Cohort of Tiny, Tiny_1" in repr(cohort)
    assert "Tiny_1 -> Tiny" in repr(cohort)
    named = {"old": "tests.tiny:Tiny", "new": tiny.Wider(5)}
    cohort = Cohort(named, AFD(), **small.SHAPES)
    assert cohort.graph.edges == (("old", "new"), ("new", "old"))
    heads = {name: set(n.heads[name]) for name, n in cohort.plan.networks.items()}
    assert heads == {"old": {"critic_new"}, "new": {"critic_old", "transfer"}}
    assert [n.start for n in cohort.plan.networks.values()] == [0, 1]


def test_teachers_have_names_too():
    students, teacher = [tiny.Tiny(5)] * 2, tiny.Tiny(5, channels=6)
    cohort = Cohort(students, KD(), teachers=[teacher, "tests.tiny:Tiny"], **small.SHAPES)
    assert cohort.graph.names == ("Tiny", "Tiny_1", "teacher", "teacher_1")
    assert cohort.graph.teachers == ("teacher", "teacher_1")
    assert cohort.graph.edges == tuple(
        (t, s) for t in ("teacher", "teacher_1") for s in ("Tiny", "Tiny_1")
    )
    named = Cohort(students[:1], KD(), teachers={"wise": teacher}, **small.SHAPES)
    assert named.graph.edges == (("wise", "Tiny"),)
    assert not named.plan.networks["wise"].trains and named.plan.networks["wise"].frozen


def test_what_stands_beside_students_has_names_and_roles():
    cohort = small.cohort(twins=True, graph=[("a", "b")])
    assert cohort.graph.nodes[2:] == (Node("a alone", "twin", "a"), Node("b alone", "twin", "b"))
    cohort = small.cohort(
        [(3, 4, 5)],
        method=AIKD(),
        teachers=[tiny.Stages(5)],
        twins=True,
        total_steps=4,
        steps_per_epoch=2,
    )
    assert cohort.graph.names == ("a", "a alone", "last epoch of a", "teacher")
    assert cohort.graph.sources("a") == ("last epoch of a", "teacher")
    assert [*cohort.plan.networks["a alone"].trains] == ["logit"]
    cohort = small.cohort([(3, 4, 5)], method=PCL(branches=2), total_steps=4)
    ends = ("branch 0", "branch 1", "ensemble classifier")
    assert cohort.graph.names == (*ends, *(f"average of {end}" for end in ends))
    assert cohort.graph.students == ends[:2] and cohort.graph.with_role("ensemble") == ends[2:]
    assert [*cohort.plan.networks] == ["a", "average of a"]


def test_a_new_run_starts_twins_alike_and_teachers_as_given():
    """From one key for each start; and seeds side by side as apart."""
    teacher = tiny.Tiny(5, channels=6)
    given = jax.tree.map(
        lambda x: x + 0.1, teacher.init(jax.random.key(7), small.batch(2)["image"], train=False)
    )
    cohort = Cohort(
        [tiny.Tiny(5), tiny.Tiny(5)], KD(), teachers=[teacher], twins=True, **small.SHAPES
    )
    state = cohort.init(jax.random.key(3), {"teacher": given})
    nets = state.networks
    assert not changed(nets["Tiny"].params["network"], nets["Tiny alone"].params["network"])
    assert changed(nets["Tiny"].params["network"], nets["Tiny_1"].params["network"])
    assert not changed(nets["teacher"].params["network"], given["params"])
    assert not changed(nets["teacher"].statistics["network"], {"batch_stats": given["batch_stats"]})
    assert int(state.step) == 0 and state.memory == {}
    keys = jnp.stack([jax.random.key(1), jax.random.key(3)])
    both = cohort.init(keys, {"teacher": jax.tree.map(lambda x: jnp.stack([x, x]), given)})
    assert small.largest_difference(jax.tree.map(lambda x: x[1], both), state) < 1e-6
    x = small.batch(4)["image"]
    module, own = cohort.plan.networks["Tiny"].module, nets["Tiny"]
    expected, _ = module.apply(
        {"params": own.params["network"], **own.statistics["network"]}, x, train=False
    )
    np.testing.assert_allclose(
        cohort.logits(state, x)["Tiny"], expected.logits, rtol=1e-5, atol=1e-6
    )


def trained(image_shape=small.IMAGE_SHAPE):
    """What `afd.load` returns of a network that nobody trained."""
    variables = tiny.Tiny(5).init(jax.random.key(5), jnp.zeros((1, *image_shape)), train=False)
    recipe = Recipe((0.3, 0.4), (0.2, 0.1))
    return TrainedNetwork("own", tiny.Tiny(5), variables, recipe, image_shape=image_shape)


def test_a_trained_teacher_gets_the_images_that_it_learned_from():
    teacher = trained()
    cohort = Cohort([tiny.Tiny(5)], KD(), teachers=[teacher], **small.SHAPES)
    state, pixels = cohort.init(jax.random.key(0)), np.arange(256, dtype=np.uint8)
    batch = {"image": pixels.reshape(2, 8, 8, 2), "label": np.zeros(2, int)}
    with pytest.raises(SettingError, match=r"batch.image = 'uint8': teacher learned from normal"):
        cohort.step(state, batch)
    with pytest.raises(SettingError, match=r"images = 'uint8': teacher learned from normalised"):
        cohort.logits(state, batch["image"])
    seeds = cohort.init(jnp.stack([jax.random.key(0), jax.random.key(1)]))
    twice = jax.tree.map(lambda x: jnp.stack([x, x]), dict(teacher.variables["params"]))
    assert not changed(seeds.networks["teacher"].params["network"], twice)
    seen = {**batch, "image": teacher.recipe.normalise(batch["image"])}
    np.testing.assert_allclose(
        cohort.forward(state, seen)["teacher"].logits, teacher(batch["image"]).logits, rtol=1e-5
    )
    with pytest.raises(SettingError, match=r"teachers = 'teacher': was trained on images \(4, 4"):
        Cohort([tiny.Tiny(5)], KD(), teachers=[trained((4, 4, 2))], **small.SHAPES)


def test_a_batch_says_nothing_that_is_not_heard():
    cohort = small.cohort(method=DML())
    state, batch = small.begin(cohort), small.batch(4)
    image = batch["image"]
    for more, words in (
        ({"mask": np.arange(4) < 2}, "batch = 'mask': unknown field"),
        ({"soft_labels": np.zeros((4, 5))}, "did you mean 'soft_label'"),
        ({"partner_image": image[:, :4]}, r"batch.partner_image = .*: must be \[batch, 8, 8, 2"),
        ({"partner_image": image[:3]}, "must be 4 images of type float32"),
        ({"partner_image": image.astype(jnp.uint8)}, "4 uint8': must be 4 images of type float32"),
    ):
        with pytest.raises(SettingError, match=words):
            cohort.step(state, batch | more)
    cohort = small.cohort(method=DML(), own_augmentation=True)
    with pytest.raises(SettingError, match="own_augmentation = True: a cohort augments nothing"):
        cohort.step(small.begin(cohort), batch)


@pytest.mark.parametrize("method", [MCL(), DCM()])
def test_a_source_without_the_heads_of_a_method_is_named(method):
    graph = (("average of a", "b"), ("b", "a"))
    with pytest.raises(SettingError, match="graph = 'average of a': has no head '"):
        small.cohort(method=method, averages=True, graph=graph, total_steps=4)


def test_what_was_used_can_still_be_copied():
    cohort, network = small.cohort(method=DML()), trained()
    state, pixels = small.begin(cohort), np.zeros((2, 8, 8, 2), np.uint8)
    before = cohort.logits(state, pixels), network(pixels).logits
    copies = copy.deepcopy(cohort), pickle.loads(pickle.dumps(network))
    after = copies[0].logits(state, pixels), copies[1](pixels).logits
    jax.tree.map(np.testing.assert_array_equal, before, after)


SCALE = {"logits": 1.0}


class Scaled(nn.Module):
    """A network that calls something which may change in a notebook."""

    @nn.compact
    def __call__(self, x, *, train):
        maps = nn.Conv(4, (3, 3), strides=4)(x)
        return Outputs(SCALE["logits"] * nn.Dense(5)(maps.mean((1, 2))), maps)


def test_a_new_cohort_sees_what_its_networks_call_now(monkeypatch):
    def logits():
        cohort = Cohort([Scaled()], Independent(), **small.SHAPES)
        return cohort.logits(cohort.init(jax.random.key(0)), small.batch(2)["image"])["Scaled"]

    before = logits()
    monkeypatch.setitem(SCALE, "logits", 3.0)
    np.testing.assert_allclose(logits(), 3 * before, rtol=1e-5)


def wrong_shape():
    cohort = Cohort([tiny.Tiny(5)], KD(), teachers=[tiny.Tiny(5)], **small.SHAPES)
    variables = tiny.Wider(5).init(jax.random.key(0), small.batch(2)["image"], train=False)
    cohort.init(jax.random.key(0), {"teacher": variables})


def one_without_a_length():
    small.cohort([(3, 4, 5)], method=ONE())


def soft(labels, **settings):
    small.cohort(**settings).losses({}, {**small.batch(2), "soft_label": labels})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Cohort("resnet8", AFD(), **small.SHAPES), "networks = 'resnet8': must be a list"),
        (lambda: Cohort(["resnet9"], AFD(), **small.SHAPES), "networks.* = 'resnet9'"),
        (lambda: Cohort([tiny.Tiny], AFD(), **small.SHAPES), r"networks\[0\] = .*is a class"),
        (lambda: Cohort([tiny.Tiny(5)], AFD(), **small.SHAPES), "networks = .*at least two"),
        (
            lambda: Cohort([tiny.Tiny(4)], DML(), **small.SHAPES),
            r"networks\[0\] = 'Tiny': .*\[batch, 5",
        ),
        (
            lambda: Cohort([tiny.Tiny(5)], KD(), teachers=[tiny.LogitsOnly(5)], **small.SHAPES),
            r"teachers\[0\] = 'teacher': must return",
        ),
        (lambda: small.cohort(graph=[("a", "c")]), "there is no node 'c'; nodes are a, b"),
        (lambda: small.cohort(graph=[("a", "a alone")], twins=True), "learns from nobody"),
        (one_without_a_length, "batch.progress = None: say how long the run is: total_steps"),
        (
            lambda: small.cohort(method=Independent()).step({}, {"image": jnp.zeros((2, 8, 8, 2))}),
            'batch.label = None: give "label" in the batch; it has image',
        ),
        (lambda: small.cohort(method=DML()).losses({}, {}), "batch.image = None.*nothing"),
        (
            lambda: Cohort([tiny.Tiny(5)], KD(), teachers=["tests.tiny:Tiny"], **small.SHAPES).init(
                jax.random.key(0)
            ),
            r"teachers = \[\]: give the variables of each frozen teacher: teacher",
        ),
        (
            lambda: small.cohort().step({}, {**small.batch(2), "label": np.array([0, 2**32])}),
            r"batch.label = 4294967296: must be a class's number, in \[0, 5\)",
        ),
        (
            lambda: small.cohort().step({}, {**small.batch(2), "label": jnp.array([-1, 0])}),
            r"batch.label = -1: must be",
        ),
        (
            lambda: small.cohort().step({}, {**small.batch(2), "label": jnp.zeros(3, int)}),
            r"batch.label = 'int32 of shape \(3,\)': must be integers of shape \(2,\)",
        ),
        (
            lambda: small.cohort(examples=9).step(
                {}, {**small.batch(2), "index": np.array([8, 9])}
            ),
            r"batch.index = 9: must be an example's number, in \[0, 9\)",
        ),
        (
            lambda: small.cohort().step({}, {**small.batch(2), "index": jnp.zeros(2)}),
            r"batch.index = 'float32 of shape \(2,\)': must be integers of shape \(2,\)",
        ),
        (wrong_shape, "teachers = 'teacher': the network's .* has shape"),
        (
            lambda: small.cohort().logits({}, jnp.zeros((2, 16, 16, 2))),
            r"images = \(2, 16, 16, 2\): must be \[batch, 8, 8, 2\]",
        ),
        (
            lambda: small.cohort().step(
                {}, {"image": jnp.zeros((8, 8, 2)), "label": jnp.zeros(8, int)}
            ),
            r"batch.image = \(8, 8, 2\): must be \[batch, 8, 8, 2\]",
        ),
        (
            lambda: small.cohort(method=KDCL(target="general")).init(jax.random.key(0)),
            "method = 'KDCL': learns from held-out images once an epoch, which only a run does",
        ),
        (
            lambda: small.cohort().losses(
                {}, {**small.batch(2), "image": np.zeros((2, 8, 8, 2), int)}
            ),
            r"batch.image = 'int32': must be uint8, from 0 to 255, or floating-point",
        ),
        (lambda: soft(np.zeros((2, 5), int)), "batch.soft_label = 'int32': must be floating-point"),
        (lambda: soft(np.full((2, 5), 3.0)), r"batch.soft_label\[0\] = \[3.0.*: must be probab"),
        (
            lambda: soft(np.full((2, 5), 0.2), method=CSKD()),
            "batch.soft_label = 'given': CSKD pairs images of one class; leave it out",
        ),
        (lambda: small.cohort(total_steps=-10), "total_steps = -10: must be a whole number"),
        (lambda: small.cohort(steps_per_epoch=2.5), "steps_per_epoch = 2.5: must be a whole"),
        (lambda: small.cohort(examples=-3), "examples = -3: must be a whole number"),
        (lambda: small.cohort(twins="no"), "twins = 'no': must be True or False"),
        (lambda: small.cohort(classes=5.0), "classes = 5.0: must be a whole number"),
        (
            lambda: small.cohort(opt={**small.optimizers(), "logitt": optax.sgd(0.1)}),
            "optimizers = 'logitt': no such update; did you mean 'logit'",
        ),
        (lambda: small.cohort(opt={"logit": 0.1}), "optimizers.logit = 0.1: must be of optax"),
        (
            lambda: small.cohort(method=Independent(label_smoothing=0.1), label_smoothing=0.1),
            "label_smoothing = 0.1: the method smooths labels by 0.1 already",
        ),
        (
            lambda: small.cohort(
                [(3, 4, 5)],
                method=FT(),
                teachers={"t": tiny.Stages(5), "u": tiny.Stages(5)},
                graph=[("t", "a")],
            ),
            "teachers = 'u': teaches nobody in this graph",
        ),
        (
            lambda: train_step(small.cohort(method=CSKD()).plan, {}, {}, mix=lambda *_: None),
            "mix = .*: CSKD pairs images of one class; leave it None",
        ),
        (lambda: small.cohort().init(0), r"rng = 0: must be a key"),
        (lambda: small.cohort().init(jax.random.key(0, impl="rbg")), "rng = .*default kind"),
    ],
)
def test_what_cannot_work_is_named(make, words):
    with pytest.raises(SettingError, match=words):
        make()


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (Independent(), {"label_smoothing": 0.1}),
        (PSKD(), {"examples": 16, "total_steps": 4, "steps_per_epoch": 2}),
    ],
)
def test_labels_out_of_range_are_nan_inside_jit_however_they_are_softened(method, settings):
    cohort = small.cohort([(3, 4, 5)], method=method, **settings)
    wrong = {**small.batch(4), "label": jnp.array([7, 0, 1, -1])}
    terms = jax.jit(cohort.losses)(small.begin(cohort), wrong)["a"]
    assert np.isnan(terms.logit["cross_entropy"]).tolist() == [True, False, False, True]


def test_labels_of_a_byte_know_all_classes():
    """Where there are more classes than a byte can count."""
    cohort = Cohort(
        [Many()], Independent(), image_shape=(8, 8, 2), classes=300, label_smoothing=0.1
    )
    state, batch = cohort.init(jax.random.key(0)), small.batch(4)
    narrow = {**batch, "label": batch["label"].astype(jnp.uint8)}
    wide, found = (cohort.losses(state, b)["Many"].logit["cross_entropy"] for b in (batch, narrow))
    np.testing.assert_array_equal(found, wide)


def test_methods_see_logits_in_single_precision():
    """Whatever the type that a network of one's own returns."""
    cohort = Cohort([Many(jnp.bfloat16)], Independent(), image_shape=(8, 8, 2), classes=300)
    state = cohort.init(jax.random.key(0))
    assert cohort.forward(state, small.batch(4))["Many"].logits.dtype == jnp.float32


class Many(nn.Module):
    """Of 300 classes."""

    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, images, *, train=True):
        logits = nn.Dense(300)(images.mean((1, 2)))
        return Outputs(logits.astype(self.dtype), images)
