"""Evaluation: every example once, each network and the ensemble of the students."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from afd_jax.engine.evaluate import eval_step
from tests import small


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
