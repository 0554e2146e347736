"""Frozen teachers, snapshots, partners and memory in one step. Numbers: test_reference_taught."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from afd_jax import methods
from afd_jax.data.batches import class_partners
from afd_jax.engine import parts
from afd_jax.engine.forward import apply, bind, terms_of
from afd_jax.errors import SettingError
from afd_jax.methods import Independent
from afd_jax.methods.method import UPDATES
from afd_jax.networks.heads import NonLinearTransformation
from tests import small, tiny
from tests.leaves import changed, nonzero


def taught(name, teachers=1, *, examples=16, opt=None, twins=False, **options):
    return small.cohort(
        [(3, 4, 5)],
        method=methods.make(name, options),
        opt=opt,
        teachers=[tiny.Stages(small.CLASSES, widths=(3, 4, 6 + n)) for n in range(teachers)],
        twins=twins,
        total_steps=4,
        steps_per_epoch=2,
        examples=examples,
    )


def paired(size=16, seed=0):
    batch = small.batch(size, seed)
    partners = jnp.asarray(class_partners(np.asarray(batch["label"]), np.random.default_rng(0)))
    return {**batch, "partner": partners, "partner_image": batch["image"][partners]}


def trained(cohort, steps=2):
    state, step = small.begin(cohort), small.step_of(cohort, detailed=False)
    for seed in range(steps):
        state, metrics = step(state, small.batch(seed=seed))
    return state, metrics


@pytest.fixture(scope="module")
def plain():
    """The same network alone: after one step and after two, and the first step's metrics."""
    cohort = small.cohort([(3, 4, 5)], method=Independent())
    step, start = small.step_of(cohort, detailed=False), small.begin(cohort)
    one, metrics = step(start, small.batch(seed=0))
    return one, step(one, small.batch(seed=1))[0], metrics


def test_a_teacher_runs_as_in_evaluation_and_does_not_move():
    cohort = taught("kd")
    network, state = cohort.plan.networks["teacher"], small.begin(cohort)
    own, images = state.networks["teacher"], small.batch()["image"]
    outputs, statistics = apply(cohort.plan, network, own.params, own.statistics, images, {})
    variables = {"params": own.params["network"], **own.statistics["network"]}
    alone = network.module.module.apply(variables, images, train=False)
    np.testing.assert_allclose(outputs["teacher"].logits, alone.logits, rtol=1e-5, atol=1e-6)
    assert not changed(statistics, own.statistics)
    assert not network.optimizers and not network.trains


def test_no_gradient_from_one_teachers_distance_to_anothers_transformation():
    """And the loss of several teachers is the sum of each, not the mean."""
    cohort = taught("feed", 2, hint_weight=3.0, norm="sum")
    plan, state = cohort.plan, small.begin(cohort)
    batch = small.batch()

    def terms(params):
        states = {**state.networks, "a": state.networks["a"].replace(params=params)}
        outputs, heads = {}, {}
        for name, network in plan.networks.items():
            own = states[name]
            args = plan, network, own.params, own.statistics, batch["image"]
            outputs |= apply(*args, {})[0]
            heads |= bind(network, own.params["heads"], own.statistics["heads"])
        variables = {name: own.variables for name, own in states.items()}
        seen = plan.seen(batch, 0, {})
        return terms_of(plan, plan.networks["a"], outputs, heads, variables, {}, seen)["a"]

    @jax.jit
    def both(params):
        def distances(params):
            own = terms(params)
            return [jnp.sum(own.metrics[f"reconstruction_from_{t}"]) for t in plan.graph.teachers]

        return terms(params), jax.jacrev(distances)(params)

    found, gradients = both(state.networks["a"].params)
    each = sum(found.metrics[f"reconstruction_from_{t}"] for t in ("teacher", "teacher_1"))
    np.testing.assert_allclose(found.logit["reconstruction"], 3 * each, rtol=1e-5)
    reached = [
        {name for name, tree in gradient["heads"]["a"].items() if nonzero(tree)}
        for gradient in gradients
    ]
    assert reached == [{"from_teacher"}, {"from_teacher_1"}]


def test_the_transformation_has_the_published_size():
    shapes = jax.eval_shape(
        NonLinearTransformation((64, 64, 64)).init, jax.random.key(0), jnp.zeros((1, 8, 8, 64))
    )
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 110_784


WITHOUT = {
    "afd": {"distillation_weight": 0.0, "adversarial_weight": 0.0},
    "ai_kd": {"distillation_weight": 0.0, "progressive_weight": 0.0, "adversarial_weight": 0.0},
    "alignment": {"distillation_weight": 0.0, "alignment_weight": 0.0},
    "at": {"hint_weight": 0.0},
    "block_kd": {"distillation_weight": 0.0, "hint_weight": 0.0},
    "crd": {"hint_weight": 0.0},
    "ensemble_kd": {"label_weight": 1.0, "distillation_weight": 0.0},
    "feed": {"hint_weight": 0.0},
    "fitnet": {"hint_weight": 0.0},
    "ft": {"hint_weight": 0.0},
    "kd": {"label_weight": 1.0, "distillation_weight": 0.0},
    "mgd": {"hint_weight": 0.0},
    "pkt": {"hint_weight": 0.0},
    "reviewkd": {"hint_weight": 0.0},
    "rkd": {"distance_weight": 0.0, "angle_weight": 0.0},
    "sp": {"hint_weight": 0.0},
    "tf_kd": {"label_weight": 1.0, "distillation_weight": 0.0},
    "vid": {"hint_weight": 0.0},
}


@pytest.mark.parametrize("name", WITHOUT)
def test_without_weights_nothing_but_cross_entropy_is_left(name):
    """No term, no head, no metric; with them there are some."""
    for options, alone in ((WITHOUT[name], True), ({}, False)):
        cohort = taught(name, **options)
        losses = functools.partial(parts.losses, cohort.plan)
        terms = jax.eval_shape(losses, small.begin(cohort), small.batch())["a"]
        found = {n for kind in (*UPDATES, "metrics") for n in getattr(terms, kind)}
        assert (found == {"cross_entropy"}) == alone
        assert not (alone and any(network.heads for network in cohort.plan.networks.values()))


def test_without_weights_and_for_a_twin_it_is_plain_training(plain):
    """The twin of a taught student learns from nobody."""
    cohort = taught("kd", twins=True, **WITHOUT["kd"])
    assert cohort.graph.names == ("a", "a alone", "teacher")
    assert cohort.graph.edges == (("teacher", "a"),)
    found, _ = trained(cohort)
    for name in ("a", "a alone"):
        ours, theirs = found.networks[name], plain[1].networks["a"]
        assert small.largest_difference(ours.params, theirs.params) < 1e-6
        assert small.largest_difference(ours.statistics, theirs.statistics) < 1e-6
    taught_twin, metrics = trained(taught("kd", twins=True))
    twin = taught_twin.networks["a alone"].params
    assert small.largest_difference(twin, plain[1].networks["a"].params) < 1e-6
    assert small.largest_difference(taught_twin.networks["a"].params, twin) > 1e-3
    assert "loss/distillation" in metrics["a"] and "loss/distillation" not in metrics["a alone"]


def test_the_last_epoch_stays_until_the_next_ends():
    cohort = taught("ai_kd")
    step, states, progressive = small.step_of(cohort, detailed=False), [small.begin(cohort)], []
    for seed in range(4):  # two steps an epoch
        state, metrics = step(states[-1], small.batch(seed=seed))
        states.append(state)
        progressive.append(float(metrics["a"]["loss/progressive"]))

    def same(one, other):
        past, own = (
            (s.networks[n].params["network"], s.networks[n].statistics["network"])
            for s, n in ((one, "last epoch of a"), (other, "a"))
        )
        return not changed(past, own)

    assert [same(s, states[0]) for s in states] == [True, True, False, False, False]
    assert [same(s, states[2]) for s in states[2:]] == [True, True, False]
    assert same(states[4], states[4])
    # Right after the end of an epoch the two differ by their statistics alone.
    assert progressive[:2] == [0, 0] and min(progressive[2:]) > 0


def test_ps_kd_first_epoch_is_plain_cross_entropy(plain):
    cohort = taught("ps_kd", 0, examples=32)
    state, ours = trained(cohort, steps=1)
    assert (
        small.largest_difference(state.networks["a"].params, plain[0].networks["a"].params) < 1e-6
    )
    name = "loss/cross_entropy"
    np.testing.assert_allclose(ours["a"][name], plain[2]["a"][name], rtol=1e-6)
    kept = state.memory["a"]
    assert [*state.memory] == ["a"] and kept.shape == (32, small.CLASSES)
    np.testing.assert_allclose(jnp.sum(kept[:16], axis=-1), 1, rtol=1e-5)
    assert not np.any(kept[16:])  # rows that no batch has had


def test_the_partner_is_a_constant_and_leaves_no_statistics():
    """CS-KD: the gradient is that of cross-entropy and of a divergence from plain numbers."""
    cohort = taught("cs_kd", 0)
    state, batch = small.begin(cohort), paired()
    own, network = state.networks["a"], cohort.plan.networks["a"]

    def logits(params, images):
        outputs, statistics = apply(cohort.plan, network, params, own.statistics, images, {})
        return outputs["a"].logits, statistics

    @jax.jit
    def expected(params):
        def loss(params, target):
            z, statistics = logits(params, batch["image"])
            entropy = -jnp.take_along_axis(jax.nn.log_softmax(z), batch["label"][:, None], 1)
            p, q = jax.nn.softmax(target / 4), jax.nn.log_softmax(z / 4)
            return jnp.mean(entropy) + 16 * jnp.mean(jnp.sum(p * (jnp.log(p) - q), 1)), statistics

        return jax.grad(loss, has_aux=True)(params, logits(params, batch["partner_image"])[0])

    gradient, statistics = expected(own.params)
    found = cohort.gradients(state, batch)["a"]["logit"]
    assert small.largest_difference(found, gradient) < 1e-4
    after, _ = small.step_of(cohort, detailed=False)(state, batch)
    assert small.largest_difference(after.networks["a"].statistics, statistics) < 1e-6
    with pytest.raises(SettingError, match=r'partner_image = None: .*give "partner_image"'):
        cohort.losses(state, small.batch())


def test_partners_are_others_of_the_same_class():
    labels = np.array([0, 1, 0, 2, 1, 0, 0])
    drawn = np.stack([class_partners(labels, np.random.default_rng(s)) for s in range(200)])
    assert np.all(labels[drawn] == labels)
    assert np.all(drawn[:, 3] == 3)  # alone in its class
    others = np.delete(np.arange(7), 3)
    assert np.all(drawn[:, others] != others)
    counts = np.bincount(drawn[:, 0], minlength=7)[[2, 5, 6]]
    assert counts.min() > 40  # evenly


def test_crd_remembers_nothing_new_of_a_student_that_nobody_teaches():
    teacher = tiny.Stages(small.CLASSES, widths=(3, 4, 6))
    method, graph = methods.CRD(negatives=4, size=3), [("teacher", "a")]
    own = small.cohort(method=method, teachers=[teacher], graph=graph, examples=16)
    state = small.begin(own)
    after, _ = small.update(own, state=state)
    assert changed(state.memory["a"], after.memory["a"])
    assert not changed(state.memory["b"], after.memory["b"])


def test_heads_are_asked_for_whom_they_concern():
    """FT: a translator for each source of a student, an encoder on top of each teacher."""
    plan = taught("ft", 2).plan
    assert {n: set(network.heads.get(n, ())) for n, network in plan.networks.items()} == {
        "a": {"from_teacher", "from_teacher_1"},
        "teacher": {"encoder"},
        "teacher_1": {"encoder"},
    }
    moved = nonzero(plan.networks["a"].trains["logit"])
    assert any("from_teacher_1" in n for n in moved) and not any("encoder" in n for n in moved)


def an_edge_to_a_teacher():
    return small.cohort(
        [(3, 4, 5)], method=methods.KD(), teachers=[tiny.Tiny(5)], graph=[("a", "teacher")]
    )


class Whole(nn.Module):
    """Returns maps of its stages, and cannot be entered between them."""

    @nn.compact
    def __call__(self, images, *, train):
        return tiny.Stages(5)(images, train=train)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: small.cohort([(3, 4, 5)], method=methods.BlockKD(), teachers={"t": Whole()}),
            "teachers = 't': cannot be entered between two stages",
        ),
        (lambda: taught("kd", 0), r"teachers = \(\): KD needs a frozen teacher"),
        (lambda: taught("ps_kd", 1), r"teachers = \('teacher',\): PSKD takes no frozen teachers"),
        (lambda: taught("fitnet", stage=4), "method.stage = 4: a has 3 stages; choose one"),
        (lambda: taught("fitnet", teacher_stage=-4), "method.teacher_stage = -4: teacher has 3"),
        (lambda: taught("at", teacher_stages=(1, 2)), "stage by stage, but a has 3 and teacher 2"),
        (an_edge_to_a_teacher, "teacher is a teacher .frozen., which learns from nobody"),
        (
            lambda: small.cohort(method=methods.FT(), teachers=[tiny.Stages(5)], graph="all_pairs"),
            "FT has no edges between networks that train",
        ),
    ],
)
def test_bad_teachers_are_named(make, words):
    with pytest.raises(SettingError, match=words):
        make()


def test_beside_teachers_students_have_no_edges_unless_asked():
    two = functools.partial(small.cohort, teachers=[tiny.Stages(5)] * 2)
    offline = [(t, s) for t in ("teacher", "teacher_1") for s in "ab"]
    assert [*two().graph.edges] == offline
    assert [*two(graph="cyclic").graph.edges] == [("a", "b"), ("b", "a"), *offline]


def test_crds_temperature_keeps_exponentials_in_float32():
    least = methods.CRD(contrast_temperature=0.012).contrast_temperature
    assert np.isfinite(np.exp(np.float32(1 / least)))
    with pytest.raises(SettingError, match=r"contrast_temperature = 0\.01: must be .*least"):
        methods.CRD(contrast_temperature=0.01)
