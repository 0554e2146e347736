"""Graphs whose edges carry different methods: each loss is its method's, labels count once."""

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

from afd_jax import methods
from afd_jax.engine.cohort import Cohort
from afd_jax.errors import SettingError
from afd_jax.methods import DML, KD, Mixed
from tests import small, tiny

TEACHER = {"teacher": tiny.Tiny(5)}


def by_hand(logits, target, temperature):
    p, q = (log_softmax(np.asarray(z, np.float64) / temperature, axis=1) for z in (target, logits))
    return temperature**2 * np.sum(np.exp(p) * (p - q), axis=1)


def test_one_method_on_all_edges_is_that_method():
    pair = Mixed({("a", "b"): DML(temperature=2.0), ("b", "a"): DML(temperature=2.0)})
    steps = []
    for method in (pair, DML(temperature=2.0)):
        cohort = small.cohort(method=method)
        state, _ = cohort.step(small.begin(cohort), small.batch())
        steps.append({n: own.params for n, own in state.networks.items()})
    jax.tree.map(np.testing.assert_array_equal, *steps)


def test_peers_that_also_learn_from_a_frozen_teacher():
    """AFD between the two, KD from the teacher to one of them; its discriminators are AFD's."""
    edges = {("a", "b"): small.afd(), ("b", "a"): small.afd(), ("teacher", "a"): KD()}
    cohort = small.cohort(small.UNEQUAL, method=Mixed(edges), teachers=TEACHER)
    state = small.begin(cohort)
    heads = {n: [*own.params["heads"].get(n, {})] for n, own in state.networks.items()}
    assert heads["a"] == ["afd_critic_b"] and heads["teacher"] == []
    assert sorted(heads["b"]) == ["afd_critic_a", "transfer"]
    batch = small.batch()
    terms, outputs = cohort.losses(state, batch), cohort.forward(state, batch)
    a, b, teacher = (outputs[n].logits for n in ("a", "b", "teacher"))
    assert sorted(terms["a"].logit) == ["afd_distillation", "cross_entropy", "kd_distillation"]
    assert sorted(terms["b"].logit) == ["afd_distillation", "cross_entropy"]
    assert [*terms["a"].feature] == ["afd_generator"]
    assert [*terms["a"].discriminator] == ["afd_discriminator"]
    found = terms["a"].logit
    np.testing.assert_allclose(found["kd_distillation"], 0.9 * by_hand(a, teacher, 4), rtol=1e-4)
    np.testing.assert_allclose(found["afd_distillation"], by_hand(a, b, 3), rtol=1e-4, atol=1e-6)
    rows = np.arange(len(batch["label"]))
    entropy = -log_softmax(np.asarray(a, np.float64), axis=1)[rows, batch["label"]]
    np.testing.assert_allclose(found["cross_entropy"], entropy, rtol=1e-5)
    # The teacher stays, and whoever has no edge from it does not feel it.
    before = jax.device_get(state)
    after, _ = cohort.step(state, batch)
    jax.tree.map(
        np.testing.assert_array_equal,
        before.networks["teacher"].params,
        after.networks["teacher"].params,
    )
    moved = jax.tree.map(lambda x: x + 1.0, before.networks["teacher"].params)
    networks = {**before.networks, "teacher": before.networks["teacher"].replace(params=moved)}
    other, _ = cohort.step(before.replace(networks=networks), batch)
    jax.tree.map(
        np.testing.assert_array_equal, after.networks["b"].params, other.networks["b"].params
    )
    assert small.largest_difference(after.networks["a"].params, other.networks["a"].params) > 1e-6


def test_methods_of_one_kind_with_other_options_stay_apart():
    edges = (("a", "b", {"name": "dml", "temperature": 2.0}), ("c", "b", "dml"), ("b", "c", "dml"))
    method = Mixed(edges)
    assert method.labels == ("dml", "dml_1")
    cohort = small.cohort([(3, 4, 5)] * 3, method=method)
    state, batch = small.begin(cohort), small.batch()
    terms, outputs = cohort.losses(state, batch), cohort.forward(state, batch)
    a, b, c = (outputs[n].logits for n in "abc")
    found = terms["b"].logit
    np.testing.assert_allclose(found["dml_distillation"], by_hand(b, a, 2), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["dml_1_distillation"], by_hand(b, c, 1), rtol=1e-4, atol=1e-6)
    assert [*terms["a"].logit] == ["cross_entropy"]  # who has no sources learns from labels
    assert methods.make("mixed", {"by_edge": str(edges)}) == method  # as on a command line


@pytest.mark.parametrize(
    ("edges", "words"),
    [
        ((), "must be .*'target'"),
        ("afd", "method.by_edge = 'afd': must be"),
        ({("a", "b"): "kdcl"}, "the edges of KDCL do not stand alone"),
        ({("a", "b"): "one"}, "the edges of ONE do not stand alone"),
        ({("a", "b"): "ft"}, "the edges of FT do not stand alone"),
        ({("a", "b"): "afdd"}, "did you mean 'afd'"),
        ({("a", "b"): "kd"}, "KD learns from frozen teachers"),
        ({("a", "b"): {"name": "dml", "temperature": 0}}, "method.temperature = 0"),
        ({("a", "c"): "dml"}, "there is no node 'c'"),
        ((("a", "b"),), "must be"),
    ],
)
def test_what_cannot_be_mixed_is_named(edges, words):
    with pytest.raises(SettingError, match=words):
        small.cohort(method=Mixed(edges))


def test_maps_that_two_methods_want_in_several_shapes_are_named():
    edges = {("a", "b"): "afd", ("b", "a"): {"name": "alignment"}}
    with pytest.raises(SettingError, match=r"method.by_edge = '.': . has one transfer layer, but"):
        small.cohort(small.UNEQUAL, method=Mixed(edges))


def test_the_graph_is_in_the_method():
    with pytest.raises(SettingError, match="by_edge; leave it"):
        small.cohort(method=Mixed({("a", "b"): "dml"}), graph="cyclic")
    kept = Cohort([tiny.Tiny(5), tiny.Wider(5)], Mixed({("Tiny", "Wider"): "dml"}), **small.SHAPES)
    assert kept.graph.edges == (("Tiny", "Wider"),)
