"""Evaluation: every example once, each network and their ensemble."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from afd_jax.engine.evaluate import eval_step
from afd_jax.graph import Graph, cyclic_pairs
from afd_jax.engine.init import init_state
from afd_jax.methods import AFD
from tests import small

UNEQUAL = ((3, 4, 5), (3, 4, 7))


def test_evaluation_counts_every_example_once():
    cohort = small.cohort()
    state = init_state(cohort, jax.random.key(0))
    whole = small.batch(10)
    step = jax.jit(functools.partial(eval_step, cohort))
    once = step(state, {**whole, "mask": jnp.ones(10, bool)})
    padded = {name: jnp.concatenate([x, x[:6]]) for name, x in whole.items()}
    again = step(state, {**padded, "mask": jnp.arange(16) < 10})
    assert int(once["count"]) == int(again["count"]) == 10
    assert small.largest_difference(once, again) < 1e-6

    logits = [
        peer.network.apply(
            {"params": s.params["network"], **s.statistics["network"]}, whole["image"], train=False
        ).logits
        for peer, s in zip(cohort.peers, state.peers, strict=True)
    ]
    right = [int(np.sum(np.argmax(z, 1) == whole["label"])) for z in logits]
    assert once["correct"].tolist() == right
    softmax = [np.exp(z - np.max(z, 1, keepdims=True)) for z in map(np.asarray, logits)]
    together = sum(p / p.sum(1, keepdims=True) for p in softmax)
    assert int(once["ensemble_correct"]) == np.sum(np.argmax(together, 1) == whole["label"])


def test_ensemble_is_of_the_members_without_their_twins():
    method = AFD(Graph(2, cyclic_pairs(2)), widths=(4,))
    batch = {**small.batch(10), "mask": jnp.ones(10, bool)}
    results = []
    for alone in (False, True):
        cohort = small.cohort(UNEQUAL, method=method, alone=alone)
        state, _ = small.update(cohort, steps=3)
        results.append(jax.jit(functools.partial(eval_step, cohort))(state, batch))
    assert results[0]["ensemble_correct"] == results[1]["ensemble_correct"]
    assert results[1]["correct"].shape == (4,)
