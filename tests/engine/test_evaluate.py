"""Evaluation: every example once, each network and the ensemble of the students."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from afd_jax.engine.evaluate import _similarity, eval_step
from afd_jax.methods import DML
from afd_jax.runs.metrics import evaluation
from tests import small, tiny


def test_evaluation_counts_every_example_once_and_twins_are_not_of_the_ensemble():
    cohort = small.cohort(small.UNEQUAL, twins=True)
    state = small.begin(cohort)
    # A twin that has gone another way, or it would not show in an ensemble.
    twin = jax.tree.map(lambda x: -9 * x, state.networks["a alone"].params)
    own = state.networks["a alone"].replace(params=twin)
    state = state.replace(networks={**state.networks, "a alone": own})
    whole = small.batch(40)
    step = jax.jit(functools.partial(eval_step, cohort.plan), static_argnames="networks")
    once = step(state, {**whole, "mask": jnp.ones(40, bool)})
    padded = {name: jnp.concatenate([x, x[:6]]) for name, x in whole.items()}
    again = step(state, {**padded, "mask": jnp.arange(46) < 40})
    assert int(once["count"]) == int(again["count"]) == 40
    assert small.largest_difference(once, again) < 1e-6

    logits = cohort.logits(state, whole["image"])
    assert {*logits} == {"a", "b", "a alone", "b alone"}
    label = np.asarray(whole["label"])
    for name, z in logits.items():
        own = state.networks[name]
        variables = {"params": own.params["network"], **own.statistics["network"]}
        module = cohort.plan.networks[name].module.module
        direct = module.apply(variables, whole["image"], train=False).logits
        np.testing.assert_allclose(z, direct, rtol=1e-4, atol=1e-5)
        assert int(once["correct"][name]) == np.sum(np.argmax(z, 1) == label)
        log_p = z - jax.nn.logsumexp(z, axis=1, keepdims=True)
        entropy = -np.sum(np.asarray(log_p)[np.arange(40), label])
        np.testing.assert_allclose(once["cross_entropy"][name], entropy, rtol=1e-5)

    def together(*names):
        p = sum(np.asarray(jax.nn.softmax(logits[name])) for name in names)
        return np.sum(np.argmax(p, 1) == label)

    assert int(once["ensemble_correct"]) == together("a", "b") != together(*logits)
    some = step(state, {**whole, "mask": jnp.ones(40, bool)}, networks=("b", "b alone"))
    assert {*some["correct"]} == {"b", "b alone"}
    assert int(some["ensemble_correct"]) == int(once["correct"]["b"])
    twins = step(state, {**whole, "mask": jnp.ones(40, bool)}, networks=("b alone",))
    assert "ensemble_correct" not in twins


def test_the_divergence_is_the_mean_over_a_nodes_edges():
    """From a student and a teacher; nats, of every example once; by those alone who have any."""
    graph = [("b", "a"), ("teacher", "a"), ("teacher", "b")]
    teacher = {"teacher": tiny.Stages(small.CLASSES, widths=(4, 3, 6))}
    cohort = small.cohort(
        small.UNEQUAL, method=DML(temperature=3.0), graph=graph, teachers=teacher, twins=True
    )
    state, whole = small.begin(cohort), small.batch(24)
    padded = {**whole, "mask": jnp.arange(24) < 20}
    step = jax.jit(functools.partial(eval_step, cohort.plan), static_argnames="divergences")
    found = step(state, padded, divergences=True)
    z = {
        node: log_softmax(np.asarray(own, np.float64)[:20], -1)
        for node, own in cohort.logits(state, whole["image"]).items()
    }

    def kl(source, own):
        return np.sum(np.exp(z[source]) * (z[source] - z[own]))

    expected = {"a": (kl("b", "a") + kl("teacher", "a")) / 2, "b": kl("teacher", "b")}
    assert {*found["divergence"]} == {*expected}
    for node, total in expected.items():
        np.testing.assert_allclose(found["divergence"][node], total, rtol=1e-4)
        np.testing.assert_allclose(
            evaluation(jax.device_get(found))["divergence"][node], total / 20, rtol=1e-4
        )
    plain = step(state, padded)
    assert "divergence" not in plain and "divergence" not in evaluation(jax.device_get(plain))


def u_statistic(x, y):
    """HSIC by U-centred Gram matrices, in float64."""
    n, centred = len(x), []
    for a in (x, y):
        gram = np.asarray(a, np.float64).reshape(n, -1)
        gram = gram @ gram.T
        np.fill_diagonal(gram, 0)
        rows = gram.sum(0) / (n - 2)
        gram = gram - rows[:, None] - rows + gram.sum() / ((n - 1) * (n - 2))
        np.fill_diagonal(gram, 0)
        centred.append(gram)
    return np.sum(centred[0] * centred[1]) / (n * (n - 3))


def maps_of(cohort, state, images):
    """The last maps [batch, values] by network, in NumPy."""
    found = {}
    for name, own in state.networks.items():
        variables = {"params": own.params["network"], **own.statistics["network"]}
        module = cohort.plan.networks[name].module.module
        features = module.apply(variables, images, train=False).features
        found[name] = np.asarray(features, np.float64).reshape(len(images), -1)
    return found


@pytest.mark.parametrize("widths", [small.EQUAL, small.UNEQUAL])
def test_similarity_is_that_of_the_last_maps_without_padding(widths):
    """Of each pair of students and, among themselves, of each pair of twins."""
    cohort = small.cohort(widths, twins=True)
    state = small.begin(cohort)
    twin = jax.tree.map(lambda x: 1.5 * x + 0.1, state.networks["a alone"].params)
    own = state.networks["a alone"].replace(params=twin)
    state = state.replace(networks={**state.networks, "a alone": own})
    batch, mask = small.batch(16), np.arange(16) % 5 != 2
    spoilt = jnp.where(mask[:, None, None, None], batch["image"], 77.0)
    step = jax.jit(functools.partial(eval_step, cohort.plan), static_argnames="networks")
    found = step(state, {**batch, "image": spoilt, "mask": jnp.asarray(mask)})["similarity"]
    assert [*found] == [("a", "b"), ("a alone", "b alone")]
    maps = maps_of(cohort, state, batch["image"][mask])
    for pair, sums in found.items():
        x, y = (maps[name] for name in pair)
        hsic = [u_statistic(*both) for both in ((x, y), (x, x), (y, y))]
        expected = {"hsic": np.multiply(hsic, mask.sum())}  # a small batch counts less
        if widths is small.EQUAL:
            lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
            expected |= {
                "l1": np.abs(x - y).mean(1).sum(),
                "l2": ((x - y) ** 2).mean(1).sum(),
                "cosine": np.sum((x * y).sum(1) / lengths),
            }
        assert {*sums} == {*expected}
        for name, value in expected.items():
            np.testing.assert_allclose(sums[name], value, rtol=2e-4, err_msg=f"{pair} {name}")
    students, twins = (float(sums["hsic"][1]) for sums in found.values())
    assert abs(students - twins) > 0.01 * abs(students)

    one = step(state, {**batch, "mask": jnp.asarray(mask)}, networks=("a", "b alone"))
    assert "similarity" not in one


def test_maps_of_two_shapes_are_not_compared_number_by_number():
    one, other = (jnp.ones((5, *shape)) for shape in ((4, 4, 4), (2, 2, 16)))
    assert {*_similarity(one, other, jnp.ones(5, bool), None)} == {"hsic"}


def test_similarity_is_of_every_pair():
    cohort = small.cohort([small.EQUAL[0]] * 3)
    batch = {**small.batch(8), "mask": jnp.ones(8, bool)}
    found = jax.jit(functools.partial(eval_step, cohort.plan))(small.begin(cohort), batch)
    assert [*found["similarity"]] == [("a", "b"), ("a", "c"), ("b", "c")]
