"""One update: its metrics, what is measured when, what draws anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax.engine.optimizers import sgd
from afd_jax.errors import SettingError
from afd_jax.methods import DML, MCL, PSKD, Independent, Mixed, Terms
from tests import small, tiny
from tests.leaves import changed

NAMES = {
    "accuracy",
    "loss/cross_entropy",
    "loss/distillation",
    "loss/generator",
    "loss/discriminator",
    "gradient_norm/logit",
    "gradient_norm/feature",
    "gradient_norm/discriminator",
    "output_gradient_norm/cross_entropy",
    "output_gradient_norm/distillation",
    "output_gradient_norm/generator",
    "real_accuracy",
    "fake_accuracy",
    "map_l1",
    "map_l2",
    "map_cosine",
}


def test_metrics_are_what_they_say_and_cost_nothing_where_they_are_not_wanted():
    """Whether terms are measured apart is a number of the program, too; the state is the same."""
    cohort = small.cohort(small.UNEQUAL)
    before, batch = small.begin(cohort), small.batch()
    step = jax.jit(lambda *args, detailed: small.train_step(cohort.plan, *args, detailed=detailed))
    state, metrics = step(before, batch, detailed=jnp.bool_(True))
    assert set(metrics) == {"a", "b"} and int(state.step) == 1
    for node in metrics.values():
        assert set(node) == NAMES
        assert all(np.isfinite(v) and v.shape == () for v in node.values())
        assert all(v > 0 for name, v in node.items() if "norm" in name or "loss" in name)

    without, fewer = step(before, batch, detailed=jnp.bool_(False))
    assert not changed(state, without)
    _, never = small.step_of(cohort, detailed=False)(before, batch)
    for name, node in metrics.items():
        for key, value in node.items():
            apart = key.startswith("output_")
            assert fewer[name][key] == (0 if apart else value)
            np.testing.assert_allclose(never[name][key], 0 if apart else value, rtol=1e-4)


def test_second_forward_sees_the_new_parameters():
    """Of the logit update; the feature and discriminator losses are those at the new ones."""
    cohorts = [small.cohort(second_forward=again) for again in (False, True)]
    states, metrics = zip(*(small.update(cohort) for cohort in cohorts), strict=True)
    one, two = (state.networks["a"].params for state in states)
    assert changed(one["network"], two["network"]) and changed(one["heads"], two["heads"])
    assert metrics[0]["a"]["loss/cross_entropy"] == metrics[1]["a"]["loss/cross_entropy"]
    for name in ("loss/generator", "map_l1"):  # losses and measurements of the new maps
        assert metrics[0]["a"][name] != metrics[1]["a"][name], name


class Decayed(Independent):
    """Learns from nobody, and has a feature loss nevertheless."""

    def node(self, own, batch):
        size = jnp.mean(own.features**2, axis=(1, 2, 3))
        return super().node(own, batch) + Terms(feature={"size": size})


def test_only_networks_with_such_losses_and_their_sources_run_twice():
    _, metrics = small.update(small.cohort(method=Decayed(), second_forward=True))
    assert metrics["a"]["loss/size"] > 0 and metrics["a"]["gradient_norm/feature"] > 0
    edges = {("a", "b"): small.afd(), ("a", "c"): DML()}
    cohorts = [
        small.cohort([(3, 4, 5)] * 3, method=Mixed(edges), second_forward=again)
        for again in (False, True)
    ]
    one, two = (small.update(cohort)[0].networks for cohort in cohorts)
    assert not changed(one["c"].statistics, two["c"].statistics)
    for name in ("a", "b"):
        assert changed(one[name].statistics, two[name].statistics)


def test_network_with_dropout_draws_anew_each_step():
    cohort = small.Cohort(
        [tiny.Dropout(5)], Independent(), **small.SHAPES, optimizers={"logit": sgd(0.0)}
    )
    step, state = small.step_of(cohort, detailed=False), small.begin(cohort)
    state, first = step(state, small.batch())
    state, second = step(state, small.batch())
    name = "loss/cross_entropy"
    assert first["Dropout"][name] != second["Dropout"][name]


def unknown(field):
    return {name: x for name, x in small.batch().items() if name != field}


def traced(cohort, batch):
    return jax.eval_shape(lambda: small.train_step(cohort.plan, small.begin(cohort), batch))


def test_the_index_may_be_missing_where_nothing_asks_for_it():
    _, metrics = traced(small.cohort(), unknown("index"))
    assert set(metrics["a"]) == NAMES


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: traced(
                small.cohort(method=PSKD(), total_steps=4, steps_per_epoch=2, examples=16),
                unknown("index"),
            ),
            'batch.index = None: give "index" in the batch',
        ),
        (
            lambda: small.cohort(method=PSKD(), steps_per_epoch=2, examples=16),
            "batch.epochs = None: say how long the run and an epoch are",
        ),
        (
            lambda: small.cohort(method=PSKD(), total_steps=4, examples=16),
            "batch.epoch = None: say how long an epoch is: steps_per_epoch",
        ),
        (lambda: small.cohort(method=DML(), second_forward=True), "second_forward = True: has no"),
        (lambda: small.cohort(opt={"logit": sgd(0.1)}), "optimizers = .*updates a by its feature"),
        (
            lambda: small.Cohort(
                [tiny.Tiny(5)], Independent(), precision="bfloat16", **small.SHAPES
            ),
            "precision = 'bfloat16': Tiny is no networks.staged.StagedNetwork",
        ),
        (
            lambda: small.cohort(method=MCL(contrast_weight=0.0), graph="star"),
            "method.contrast_weight = 0.0: nothing trains the embedding of 'b', which only teaches",
        ),
        (lambda: small.cohort(precision="bf16"), "precision = 'bf16': did you mean 'bfloat16'"),
        (lambda: small.cohort(average_decay=1.0), "average_decay = 1.0: must be a number"),
    ],
)
def test_what_is_missing_is_named_before_anything_is_compiled(make, words):
    with pytest.raises(SettingError, match=words):
        make()
