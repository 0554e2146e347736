"""Distillation from a gated ensemble: what it becomes in special cases, and what moves its gate.

Two updates against PyTorch: test_reference_logits.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, softmax

from afd_jax.engine import parts
from afd_jax.errors import SettingError
from afd_jax.methods import KD, EnsembleKD
from tests import small, tiny
from tests.leaves import changed, names, nonzero

GATE = "heads/a/gate/linear1/"


def cohort(method, teachers=2, **more):
    return small.cohort(
        small.EQUAL[:1],
        method=method,
        teachers=[tiny.Tiny(5, channels=6 + n) for n in range(teachers)],
        make=lambda classes, widths: tiny.Tiny(classes),
        **more,
    )


def terms_and_logits(of, batch):
    state = small.begin(of)
    terms = jax.jit(functools.partial(parts.losses, of.plan))(state, batch)["a"]
    outputs = parts.forward(of.plan, state, batch)
    return terms, [np.asarray(own.logits, np.float64) for own in outputs.values()]


@pytest.mark.parametrize("gate", ["learned", "mean"])
@pytest.mark.parametrize("standardize", [False, True])
def test_with_one_teacher_it_is_kd(gate, standardize):
    """The gate has nothing to choose from."""
    own = cohort(EnsembleKD(gate=gate, standardize=standardize), 1)
    (found, ours), (expected, theirs) = (
        small.update(of, steps=2) for of in (own, cohort(KD(standardize=standardize), 1))
    )
    assert small.largest_difference(found, expected) < 1e-5
    assert ours["a"].pop("gate_teacher") == 1
    assert {*ours["a"]} == {*theirs["a"]}
    assert not found.networks["a"].params["heads"]


def test_the_target_of_even_weights_is_the_mean_of_softened_probabilities():
    """Not the mean of logits, and not KD's mean of divergences."""
    own = cohort(EnsembleKD(gate="mean", temperature=3.0, distillation_weight=2.0))
    terms, (z, *taught) = terms_and_logits(own, small.batch())
    target = np.mean([softmax(t / 3, -1) for t in taught], axis=0)
    kl = np.sum(target * (np.log(target) - log_softmax(z / 3, -1)), -1)
    np.testing.assert_allclose(terms.logit["distillation"], 2 * 9 * kl, rtol=1e-4, atol=1e-6)
    assert {*terms.logit} == {"cross_entropy", "distillation"}
    for name in ("teacher", "teacher_1"):
        np.testing.assert_allclose(terms.metrics[f"gate_{name}"], 0.5, rtol=1e-6)
    apart, _ = terms_and_logits(cohort(KD(temperature=3.0, distillation_weight=2.0)), small.batch())
    assert np.max(apart.logit["distillation"] - terms.logit["distillation"]) > 1e-3


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_the_gate_pays_for_the_error_of_the_mixture(kind):
    batch = small.batch()
    y = np.eye(5)[batch["label"]]
    if kind == "soft":
        y = np.random.default_rng(0).dirichlet(np.ones(5), 16)
        batch["soft_label"] = jnp.asarray(y, jnp.float32)
    own = cohort(EnsembleKD())
    terms, (_, *taught) = terms_and_logits(own, batch)
    head = small.begin(own).networks["a"].params["heads"]["a"]["gate"]["linear1"]
    kernel, bias = np.asarray(head["kernel"]), np.asarray(head["bias"])
    gate = softmax(np.concatenate(taught, -1) @ kernel + bias, -1)
    mixed = sum(gate[:, m, None] * softmax(t, -1) for m, t in enumerate(taught))
    np.testing.assert_allclose(terms.logit["gate"], -np.sum(y * np.log(mixed), -1), rtol=1e-5)
    for m, name in enumerate(("teacher", "teacher_1")):
        np.testing.assert_allclose(terms.metrics[f"gate_{name}"], gate[:, m], rtol=1e-5)
    assert np.std(gate[:, 0]) > 0.01


def test_the_gate_learns_by_its_own_loss_alone_and_the_network_by_the_others():
    own = cohort(EnsembleKD())
    state = small.begin(own)

    def losses(params):
        networks = {n: own.replace(params=params[n]) for n, own in state.networks.items()}
        terms = parts.losses(own.plan, state.replace(networks=networks), small.batch())
        return {name: jnp.mean(value) for name, value in terms["a"].logit.items()}

    params = {name: own.params for name, own in state.networks.items()}
    gradients = jax.jit(jax.jacrev(losses))(params)
    gate = {GATE + "kernel", GATE + "bias"}
    assert {name: nonzero(of["a"]) for name, of in gradients.items()} == {
        "gate": gate,
        "cross_entropy": names(params["a"]) - gate,
        "distillation": names(params["a"]) - gate,
    }
    assert not any(nonzero(of[t]) for of in gradients.values() for t in ("teacher", "teacher_1"))
    trains = own.plan.networks["a"].trains
    assert [*trains] == ["logit"] and nonzero(trains["logit"]) == names(params["a"])


def test_the_gate_comes_to_trust_the_teacher_that_is_right():
    """Where one has learned the batch, beside one that has not."""
    alone = small.cohort(
        small.EQUAL[:1],
        method=KD(label_weight=1.0, distillation_weight=0.0),
        teachers=[tiny.Tiny(5)],
        make=lambda classes, widths: tiny.Tiny(classes, channels=7),
        opt={"logit": optax.sgd(0.5)},
    )
    learned, _ = small.update(alone, steps=30)
    own = cohort(EnsembleKD())
    state = small.begin(own)
    right = learned.networks["a"]
    right = state.networks["teacher_1"].replace(
        params={**right.params, "heads": {}}, statistics={**right.statistics, "heads": {}}
    )
    state = state.replace(networks={**state.networks, "teacher_1": right})
    after, metrics = small.update(own, steps=30, state=state)
    assert metrics["a"]["gate_teacher_1"] > 0.6
    total = metrics["a"]["gate_teacher"] + metrics["a"]["gate_teacher_1"]
    np.testing.assert_allclose(total, 1, rtol=1e-6)
    for name in ("teacher", "teacher_1"):
        assert not changed(state.networks[name].params, after.networks[name].params)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EnsembleKD(gate="man"), "method.gate = 'man': did you mean 'mean'"),
        (lambda: cohort(EnsembleKD(), 0), r"teachers = \(\): EnsembleKD needs a frozen teacher"),
        (
            lambda: small.cohort(
                method=EnsembleKD(), teachers=[tiny.Tiny(5)] * 2, graph="all_pairs"
            ),
            "EnsembleKD has no edges between networks that train",
        ),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(SettingError, match=words):
        make()
