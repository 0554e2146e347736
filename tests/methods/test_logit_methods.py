"""Methods on logits: what they become in special cases, who pauses, whose gradients go where.

Two updates against PyTorch: test_reference_logits.py. Their losses: tests/losses/test_logits.py.
"""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from afd_jax import methods
from afd_jax.engine import parts
from afd_jax.engine.optimizers import adam
from afd_jax.errors import SettingError
from afd_jax.methods import CTKD, DKD, DML, KD, Independent, SwitOKD, Terms, View
from tests import small, tiny
from tests.leaves import changed, names, nonzero

RUN = {"total_steps": 40, "steps_per_epoch": 1}
TAUGHT = {"dkd": {}, "dist": {}, "ctkd": {}, "kd": {"standardize": True}}
EVERY = {**TAUGHT, "switokd": {}}


def cohort(method, **more):
    """A student with a frozen teacher, or a pair."""
    taught = bool(method.teachers[0])
    teachers = [tiny.Tiny(5, channels=6)] if taught else []
    widths = small.EQUAL[:1] if taught else small.EQUAL
    make = lambda classes, widths: tiny.Tiny(classes)  # noqa: E731
    return small.cohort(widths, method=method, teachers=teachers, make=make, **{**RUN, **more})


def terms_of(of, state):
    return jax.jit(functools.partial(parts.losses, of.plan))(state, small.batch())


@pytest.mark.parametrize("name", EVERY)
def test_only_the_own_network_and_its_heads_get_a_gradient(name):
    """Of each node's losses, as the method writes them."""
    own = cohort(methods.make(name, EVERY[name]))
    state, others = small.begin(own), {"a": "teacher" if name in TAUGHT else "b"}

    def total(params):
        networks = {n: own.replace(params=params[n]) for n, own in state.networks.items()}
        terms = parts.losses(own.plan, state.replace(networks=networks), small.batch())
        return sum(jnp.mean(value) for value in terms["a"].logit.values())

    params = {name: own.params for name, own in state.networks.items()}
    gradient = jax.jit(jax.grad(total))(params)
    assert nonzero(gradient["a"]) == names(params["a"])
    assert not nonzero(gradient[others["a"]])
    trains = own.plan.networks["a"].trains
    assert [*trains] == ["logit"] and all(jax.tree.leaves(trains["logit"]))
    assert ("heads/a/temperature/number" in nonzero(trains["logit"])) == (name == "ctkd")


@pytest.mark.parametrize("name", TAUGHT)
def test_weights_zero_are_independent_training(name):
    weights = {n: 0.0 for n in methods.options.of(methods.find(name)) if n.endswith("_weight")}
    own = cohort(methods.make(name, {**weights, "label_weight": 1.0}))
    plain = small.cohort([(1,)], method=Independent(), make=lambda c, widths: tiny.Tiny(c))
    found, expected = (small.update(of, steps=2)[0].networks["a"] for of in (own, plain))
    assert not changed(found.params["network"], expected.params["network"])
    assert not found.params["heads"]


def test_the_parts_of_dkd_make_the_divergence_of_kd():
    options = {"temperature": 4.0, "label_weight": 1.0}
    parted = cohort(DKD(other_classes_weight=1.0, warm_up=0.0, **options))
    whole = cohort(KD(distillation_weight=1.0, **options))
    state = small.begin(parted)
    ours, theirs = (terms_of(of, state)["a"].logit for of in (parted, whole))
    target = parts.forward(parted.plan, state, small.batch())["teacher"].logits
    labels = small.batch()["label"]
    left = 1 - jax.nn.softmax(target / 4)[jnp.arange(16), labels]
    kl = ours["target_class"] + left * ours["other_classes"]
    np.testing.assert_allclose(kl, theirs["distillation"], rtol=1e-4, atol=1e-6)
    assert np.min(left * ours["other_classes"]) > 1e-6


def test_both_parts_of_dkd_rise_over_the_first_epochs():
    own = cohort(DKD(warm_up=4.0))
    state = small.begin(own)
    full = terms_of(cohort(DKD(warm_up=0.0)), state)["a"].logit
    for epoch, share in ((0, 0.25), (2, 0.75), (3, 1.0), (9, 1.0)):
        found = terms_of(own, state.replace(step=jnp.int32(epoch)))["a"].logit
        for name in ("target_class", "other_classes"):
            np.testing.assert_allclose(found[name], share * full[name], rtol=1e-6)


def test_a_temperature_without_an_adversary_is_that_of_kd():
    """And the number u stays where it is, but for weight decay."""
    opt = {"logit": optax.sgd(0.1, momentum=0.9)}
    before = small.begin(cohort(CTKD())).networks["a"].params["heads"]
    ours, metrics = small.update(cohort(CTKD(adversarial_weight=0.0), opt=opt), steps=3)
    temperature = float(metrics["a"]["temperature"])
    number = float(before["a"]["temperature"]["number"])
    np.testing.assert_allclose(temperature, 1 + 20 / (1 + np.exp(-number)), rtol=1e-6)
    theirs, _ = small.update(cohort(KD(temperature=temperature), opt=opt), steps=3)
    (ours, theirs) = (state.networks["a"].params for state in (ours, theirs))
    assert small.largest_difference(ours["network"], theirs["network"]) < 1e-5
    assert not changed(before, ours["heads"])
    (head,) = CTKD().heads(View("a", "student", None, sources=("teacher",))).values()
    assert head.init(jax.random.key(0), jnp.zeros(2)) == {"params": {"number": 1.0}}


def test_the_temperature_goes_against_the_student():
    """Its gradient is the divergence's, turned round, with a factor that rises over ten epochs."""
    own = cohort(CTKD())
    state = small.begin(own)

    def gradient(method, step):
        plan = cohort(method).plan
        found = jax.jit(functools.partial(parts.gradients, plan))
        at = state.replace(step=jnp.int32(step))
        return found(at, small.batch())["a"]["logit"]["heads"]["a"]["temperature"]["number"]

    def divergence(number):
        """By KD at the temperature of this number."""
        temperature = float(1 + 20 / (1 + np.exp(-number)))
        terms = terms_of(cohort(KD(temperature=temperature)), state)
        return np.mean(np.asarray(terms["a"].logit["distillation"], np.float64))

    number = float(state.networks["a"].params["heads"]["a"]["temperature"]["number"])
    slope = (divergence(number + 0.1) - divergence(number - 0.1)) / 0.2
    assert abs(slope) > 1e-5
    for step in (0, 4, 9, 30):
        factor = -(1 - np.cos(np.pi * min((step + 1) / 10, 1))) / 2
        np.testing.assert_allclose(gradient(CTKD(), step), factor * slope, rtol=0.03)
    np.testing.assert_allclose(gradient(CTKD(rise=0.0), 0), -slope, rtol=0.03)


def scaled(state, name, factor):
    """A network whose logits are so many times as large."""
    own = state.networks[name]
    network = {**own.params["network"]}
    network["Dense_0"] = jax.tree.map(lambda x: factor * x, network["Dense_0"])
    params = {**own.params, "network": network}
    return state.replace(networks={**state.networks, name: own.replace(params=params)})


def ahead(steps=30):
    """A pair of which b has learned the batch, and a has not."""
    alone = cohort(Independent(), opt={"logit": optax.sgd(0.5)})
    learned, _ = small.update(alone, steps=steps)
    own = cohort(SwitOKD(pausing=("b",)))
    state = small.begin(own)
    network = state.networks["b"].replace(params=learned.networks["b"].params)
    return own, scaled(state.replace(networks={**state.networks, "b": network}), "b", 6.0)


def test_a_switch_that_never_fires_is_mutual_learning():
    """The teacher is behind: it may not pause."""
    _, state = ahead()
    own = cohort(SwitOKD(pausing=("a",)))
    (found, metrics), (expected, _) = (
        small.update(of, steps=3, state=state) for of in (own, cohort(DML()))
    )
    assert metrics["a"]["paused"] == 0 and "paused" not in metrics["b"]
    assert not changed(found.networks, expected.networks)


def test_a_teacher_that_is_far_ahead_pauses_and_its_student_goes_on():
    own, state = ahead()
    (found, metrics), (expected, _) = (small.update(of, state=state) for of in (own, cohort(DML())))
    assert metrics["b"]["paused"] == 1
    before, after = state.networks["b"], found.networks["b"]
    assert not changed((before.params, before.optimizers), (after.params, after.optimizers))
    assert changed(before.statistics, after.statistics)
    assert not changed(expected.networks["a"], found.networks["a"])
    assert metrics["b"]["loss/cross_entropy"] > 0
    # Whoever is ahead, if nobody is named.
    anybody, told = small.update(cohort(SwitOKD()), state=state)
    assert (told["a"]["paused"], told["b"]["paused"]) == (0, 1)
    assert not changed(found.networks, anybody.networks)


SCHEDULE = optax.linear_schedule(0.1, 0.0, 100)


@pytest.mark.parametrize(
    ("optimizer", "going_on"),
    [
        (small.sgd(SCHEDULE, momentum=0.9, weight_decay=1e-3), {"count": 1}),
        (adam(SCHEDULE), {"count": 1}),
        (
            optax.inject_hyperparams(optax.sgd)(learning_rate=SCHEDULE, momentum=0.9),
            {"count": 2, "learning_rate": 1},
        ),
    ],
    ids=["sgd", "adam", "injected"],
)
def test_a_pause_stops_momentum_but_not_the_schedule(optimizer, going_on):
    own, state = ahead()
    own = cohort(SwitOKD(pausing=("b",)), opt={"logit": optimizer})
    networks = {
        name: old.replace(
            params=state.networks[name].params,
            optimizers=jax.tree.map(lambda x: x + jnp.ones_like(x), old.optimizers),
        )
        for name, old in small.begin(own).networks.items()
    }
    begun = state.replace(networks=networks)
    found, metrics = small.update(own, state=begun)
    assert metrics["b"]["paused"] == 1
    before, after = begun.networks["b"], found.networks["b"]
    assert not changed(before.params, after.params)
    moved = changed(before.optimizers, after.optimizers)
    assert collections.Counter(name.rsplit("/")[-1] for name in moved) == going_on


def test_a_pause_is_that_of_the_whole_network():
    """It is said by any node; terms are added up."""
    yes, no = (Terms(paused=jnp.bool_(truth)) for truth in (True, False))
    assert Terms.sum([no, yes]).paused and not Terms.mean([no, no, Terms()]).paused
    assert Terms.sum([Terms(), Terms()]).paused is None


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: cohort(SwitOKD(pausing=("c",))), "method.pausing = 'c': Choose one of: a, b"),
        (lambda: cohort(SwitOKD(pausing=("a", "b"))), "method.pausing = .*: leave out one network"),
        (
            lambda: cohort(SwitOKD(pausing=("b",)), graph=[("b", "a")]),
            "method.pausing = 'b': learns from no network that never pauses",
        ),
        (lambda: SwitOKD(pausing="b"), "method.pausing = 'b': must be a list of names"),
        (lambda: DKD(warm_up=-1), "method.warm_up = -1: must be a number and at least 0"),
        (lambda: cohort(CTKD(), steps_per_epoch=None), "batch.epoch = None: say how long an epoch"),
        (
            lambda: Terms(paused=jnp.zeros(3, bool)).check("a", 3),
            r"method = 'paused': of a must be one truth value, not bool of shape \(3,\)",
        ),
        (
            lambda: Terms(paused=jnp.zeros(())).check("a", 3),
            "method = 'paused': of a must be one truth value, not float32",
        ),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(SettingError, match=words):
        make()
