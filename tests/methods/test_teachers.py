"""Frozen teachers and followers in one step: who gets a gradient, and what reduces to what."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax.engine.build import make_cohort
from afd_jax.data.batches import class_partners
from afd_jax.errors import SettingError
from afd_jax.engine.forward import apply_peer
from afd_jax.graph import Graph, from_teachers
from afd_jax.networks.heads import NonLinearTransformation
from afd_jax.engine.init import init_state
from afd_jax.methods import METHODS, make_method
from afd_jax.engine.optimizers import adam, sgd
from afd_jax.engine.devices import make_parallel
from afd_jax.engine.step import train_step
from tests import small, tiny


def taught(name, teachers=1, *, examples=16, opt=None, alone=False, **options):
    networks = [] if name == "paraphraser" else [tiny.Stages(small.CLASSES)]
    names = ["student"][: len(networks)]
    return make_cohort(
        networks,
        make_method(name, "own", names, options, teachers),
        opt or small.optimizers(),
        image_shape=small.IMAGE_SHAPE,
        classes=small.CLASSES,
        teachers=[tiny.Stages(small.CLASSES, widths=(3, 4, 6 + n)) for n in range(teachers)],
        alone=alone,
        total_steps=4,
        steps_per_epoch=2,
        examples=examples,
    )


def variables(module, seed):
    """Of a network that has seen something: statistics that are not where they began."""
    made = module.init(jax.random.key(seed), jnp.zeros((1, *small.IMAGE_SHAPE)), train=False)
    return jax.tree.map(lambda x: x + 0.01 * seed, made)


def begun(cohort, seed=0):
    teachers = [variables(cohort.peers[p].network, 7 + p) for p in cohort.teachers]
    return init_state(cohort, jax.random.key(seed), teachers)


def paired(size=16, seed=0):
    batch = small.batch(size, seed)
    partners = jnp.asarray(class_partners(np.asarray(batch["label"]), np.random.default_rng(0)))
    return {**batch, "partner": partners, "partner_image": batch["image"][partners]}


def trained(cohort, steps=2, state=None):
    state = begun(cohort) if state is None else state
    step = jax.jit(functools.partial(train_step, cohort))
    for seed in range(steps):
        state, metrics = step(state, paired(seed=seed))
    return state, metrics


def test_a_teacher_runs_as_in_evaluation():
    cohort = taught("kd")
    state, batch = begun(cohort), paired()
    (output,), _ = apply_peer(
        cohort, 1, state.peers[1].params, state.peers[1].statistics, batch["image"], {}
    )
    alone = cohort.peers[1].network.apply(
        variables(cohort.peers[1].network, 8), batch["image"], train=False
    )
    np.testing.assert_allclose(output.logits, alone.logits, rtol=1e-6)


def test_no_gradient_from_one_teachers_distance_to_anothers_transformation():
    cohort = taught("feed", 2)
    state, batch = begun(cohort), paired()

    def distance(params, n):
        own = apply_peer(cohort, 0, params, state.peers[0].statistics, batch["image"], {})[0]
        others = [
            apply_peer(cohort, p, s.params, s.statistics, batch["image"], {})[0][0]
            for p, s in list(enumerate(state.peers))[1:]
        ]
        return jnp.sum(cohort.method.distances(0, [*own, *others])[n])

    for n in (0, 1):
        gradient = jax.grad(distance)(state.peers[0].params, n)["projections"]
        sizes = {
            k: small.largest_difference(g, jax.tree.map(jnp.zeros_like, g))
            for k, g in gradient.items()
        }
        assert sizes[f"from_{1 + n}"] > 0 and sizes[f"from_{2 - n}"] == 0


def test_the_loss_of_several_teachers_is_the_sum_of_each():
    cohort = taught("feed", 2, hint_weight=3.0, norm="sum")
    _, metrics = trained(cohort, steps=1)
    each = [metrics[0][f"reconstruction_from_{j}"] for j in (1, 2)]
    np.testing.assert_allclose(metrics[0]["loss/reconstruction"], 3 * sum(each), rtol=1e-6)


def test_the_transformation_has_the_published_size():
    shapes = jax.eval_shape(
        NonLinearTransformation((64, 64, 64)).init, jax.random.key(0), jnp.zeros((1, 8, 8, 64))
    )
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 110_784


def plain(**options):
    return make_cohort(
        [tiny.Stages(small.CLASSES)],
        METHODS["independent"].from_settings("own", ["student"], options),
        small.optimizers(),
        image_shape=small.IMAGE_SHAPE,
        classes=small.CLASSES,
    )


WITHOUT = {
    "ai_kd": {"distillation_weight": 0.0, "progressive_weight": 0.0, "adversarial_weight": 0.0},
    "feed": {"hint_weight": 0.0},
    "kd": {"label_weight": 1.0, "distillation_weight": 0.0},
    "tf_kd": {"label_weight": 1.0, "distillation_weight": 0.0},
}


@pytest.mark.parametrize("name", WITHOUT)
def test_without_weights_it_is_plain_training(name):
    ours, _ = trained(taught(name, **WITHOUT[name]))
    theirs, _ = trained(plain())
    assert (
        small.largest_difference(ours.peers[0].params["network"], theirs.peers[0].params["network"])
        < 1e-6
    )
    weighted, _ = trained(taught(name))
    assert (
        small.largest_difference(
            weighted.peers[0].params["network"], theirs.peers[0].params["network"]
        )
        > 1e-4
    )


def test_the_last_epoch_stays_until_the_next_ends():
    cohort = taught("ai_kd")
    state = begun(cohort)
    step = jax.jit(functools.partial(train_step, cohort))
    states, progressive = [state], []
    for seed in range(4):  # two steps an epoch
        state, metrics = step(states[-1], paired(seed=seed))
        states.append(state)
        progressive.append(float(metrics[0]["loss/progressive"]))

    def same(a, b):
        return (
            small.largest_difference(
                (a.params["network"], a.statistics["network"]),
                (b.params["network"], b.statistics["network"]),
            )
            == 0
        )

    assert [same(s.peers[1], states[0].peers[0]) for s in states] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert [same(s.peers[1], states[2].peers[0]) for s in states[2:]] == [True, True, False]
    assert same(states[4].peers[1], states[4].peers[0])
    # Right after the end of an epoch the two differ by their statistics alone.
    assert progressive[:2] == [0, 0] and min(progressive[2:]) > 0


def test_generator_and_discriminator_are_opposed():
    """With a discriminator that learns fast and a network that stands still, and the reverse."""
    fast, still = adam(1e-2), sgd(0.0)
    _, first = trained(taught("ai_kd"), steps=1)
    _, told = trained(taught("ai_kd", opt={"logit": still, "discriminator": fast}), steps=30)
    assert told[0]["loss/discriminator"] < first[0]["loss/discriminator"]
    assert told[0]["loss/generator"] > first[0]["loss/generator"]


def test_ps_kd_first_epoch_is_plain_cross_entropy():
    state, ours = trained(taught("ps_kd", 0, examples=32), steps=1)
    other, theirs = trained(plain(), steps=1)
    assert small.largest_difference(state.peers[0].params, other.peers[0].params) < 1e-6
    name = "loss/cross_entropy"
    np.testing.assert_allclose(ours[0][name], theirs[0][name], rtol=1e-6)
    kept = state.memory["predictions"]
    assert kept.shape == (1, 32, small.CLASSES)
    np.testing.assert_allclose(jnp.sum(kept[0, :16], axis=-1), 1, rtol=1e-5)
    assert not np.any(kept[0, 16:])  # rows that no batch has had


@pytest.mark.parametrize("name", ["ps_kd", "cs_kd", "ai_kd"])
def test_several_devices_equal_one(name):
    def steps(mode, devices):
        parallel = make_parallel(mode, devices)
        cohort = parallel.prepare(taught(name, int(name == "ai_kd")))
        state = parallel.put_state(begun(cohort))
        step = parallel.compile(functools.partial(train_step, cohort), donate=True)
        for seed in range(3):
            batch = jax.device_get(paired(seed=seed))
            state, metrics = step(state, parallel.put_batch(batch))
        return jax.device_get((state.peers, state.memory, metrics))

    assert small.largest_difference(steps("pmap", 2), steps("jit", 1)) < 1e-4


def test_partners_are_others_of_the_same_class():
    labels = np.array([0, 1, 0, 2, 1, 0, 0])
    drawn = np.stack([class_partners(labels, np.random.default_rng(s)) for s in range(200)])
    assert np.all(labels[drawn] == labels)
    assert np.all(drawn[:, 3] == 3)  # alone in its class
    others = np.delete(np.arange(7), 3)
    assert np.all(drawn[:, others] != others)
    counts = np.bincount(drawn[:, 0], minlength=7)[[2, 5, 6]]
    assert counts.min() > 40  # evenly


def test_a_twin_beside_a_taught_student_is_plain():
    cohort = taught("kd", alone=True)
    assert cohort.nodes == ("Stages", "Stages alone", "Stages")
    assert cohort.method.graph.edges == ((2, 0),)
    ours, metrics = trained(cohort)
    theirs, _ = trained(plain())
    twin = ours.peers[1].params["network"]
    assert small.largest_difference(twin, theirs.peers[0].params["network"]) < 1e-6
    assert "loss/distillation" in metrics[0] and "loss/distillation" not in metrics[1]


def wrong_shape():
    cohort = taught("kd")
    return init_state(cohort, jax.random.key(0), [variables(tiny.Stages(small.CLASSES), 1)])


def an_edge_to_a_teacher():
    networks = [tiny.Stages(small.CLASSES)]
    method = METHODS["kd"](Graph(2, ((0, 1),)), teachers=1)
    return make_cohort(
        networks,
        method,
        small.optimizers(),
        image_shape=small.IMAGE_SHAPE,
        classes=small.CLASSES,
        teachers=networks,
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: taught("kd", 0), "teachers = 0: kd needs a frozen teacher"),
        (lambda: taught("ps_kd", 1), "teachers = 1: ps_kd takes no frozen teachers"),
        (lambda: taught("ai_kd", alone=True), "alone = True: AIKD has no twins"),
        (lambda: taught("fitnet", stage=4), "method.stage = 4: node 0's network has 3 stages"),
        (lambda: init_state(taught("kd"), jax.random.key(0)), "give the variables of each"),
        (wrong_shape, "teachers = 'Stages': the network's"),
        (an_edge_to_a_teacher, "node 1 is a frozen teacher, which learns from nobody"),
    ],
)
def test_bad_teachers_are_named(make, words):
    with pytest.raises(SettingError, match=words):
        make()


def test_the_offline_graph_has_no_edges_between_students():
    method = METHODS["afd"].from_settings("own", ["a", "b"], {}, 2)
    assert method.graph.edges == from_teachers(2, 2)
    cycle = METHODS["afd"].from_settings("cyclic", ["a", "b"], {}, 1)
    assert cycle.graph.edges == ((0, 1), (1, 0), (2, 0), (2, 1))
