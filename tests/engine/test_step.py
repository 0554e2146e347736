"""One update: its options, its metrics, what draws anew."""

import functools

import jax
import numpy as np
import pytest

from afd_jax.engine.build import make_cohort
from afd_jax.errors import SettingError
from afd_jax.graph import Graph, all_pairs, cyclic_pairs
from afd_jax.engine.init import init_state
from afd_jax.methods import AFD, DML, Alignment, Independent
from afd_jax.engine.optimizers import sgd
from afd_jax.engine.step import train_step
from tests import small, tiny
from tests.leaves import changed

UNEQUAL = ((3, 4, 5), (3, 4, 7))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda g: DML(g, temperature=0), "method.temperature = 0: must be a number"),
        (lambda g: DML(g, second_forward=2), "method.second_forward = 2: must be True"),
        (lambda g: Alignment(g, distance="l3"), "method.distance = 'l3': .*Choose one of: l1, l2"),
        (lambda g: Alignment(g, alignment_weight=-1), "method.alignment_weight = -1: must be"),
        (lambda g: AFD(g, objective="gan"), "method.objective = 'gan': .*Choose one of: bce"),
    ],
)
def test_bad_options_of_methods_are_named(make, words):
    with pytest.raises(SettingError, match=words):
        make(Graph(2, cyclic_pairs(2)))


def test_second_forward_without_feature_losses_is_refused():
    method = AFD(Graph(2, cyclic_pairs(2)), adversarial_weight=0.0, second_forward=True)
    with pytest.raises(SettingError, match=r"method.second_forward = True: has no effect"):
        small.cohort(method=method)


def test_a_network_that_only_teaches_gets_no_transfer_layer():
    """Nothing would train it; the others come to its shape."""
    widths = ((3, 4, 5), (3, 4, 7), (3, 4, 6))
    chain = small.cohort(widths, method=AFD(Graph(3, ((1, 0), (0, 2))), widths=(4,)))
    assert [bool(peer.projections) for peer in chain.peers] == [True, False, True]
    assert chain.peers[2].projections["transfer"].shape == (2, 2, 7)
    with pytest.raises(SettingError, match=r"networks \[1, 2\] only teach.*need one shape"):
        small.cohort(widths, method=AFD(Graph(3, ((1, 0), (2, 0))), widths=(4,)))


def test_unconnected_pairs_have_shapes_of_their_own():
    widths = ((3, 4, 5), (3, 4, 7), (3, 4, 9), (3, 4, 9))
    graph = Graph(4, ((0, 1), (1, 0), (2, 3), (3, 2)))
    cohort = small.cohort(widths, method=AFD(graph, widths=(4,)))
    assert [bool(peer.projections) for peer in cohort.peers] == [False, True, False, False]


def test_all_pairs_of_three_owns_a_discriminator_per_source():
    method = AFD(Graph(3, all_pairs(3)), widths=(4,))
    state, metrics = small.update(small.cohort(((3, 4, 5),) * 3, method=method))
    assert set(state.peers[1].discriminators) == {"from_0", "from_2"}
    assert all(np.isfinite(v) for node in metrics for v in node.values())


@pytest.mark.parametrize("objective", ["bce", "hinge", "wasserstein"])
def test_other_objectives_train_the_discriminator(objective):
    """Beside networks that stand still, it comes to tell their maps apart."""
    opt = {**small.optimizers(), "logit": sgd(0.0), "feature": sgd(0.0)}
    cohort = small.cohort(objective=objective, opt=opt)
    before = init_state(cohort, jax.random.key(0))
    step = jax.jit(functools.partial(train_step, cohort))
    after, first = step(before, small.batch())
    for _ in range(10):
        after, last = step(after, small.batch())
    assert last[0]["loss/discriminator"] < first[0]["loss/discriminator"]


def test_metrics_are_what_they_say():
    cohort = small.cohort(UNEQUAL)
    state, metrics = small.update(cohort)
    expected = {
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
    for node in metrics:
        assert set(node) == expected
        assert all(np.isfinite(v) and v.shape == () for v in node.values())
        assert all(v > 0 for name, v in node.items() if "norm" in name or "loss" in name)
    assert int(state.step) == 1


def test_second_forward_sees_the_new_parameters():
    one, _ = small.update(small.cohort())
    two, _ = small.update(small.cohort(second_forward=True))
    assert changed(one.peers[0].params, two.peers[0].params)


def test_network_with_dropout_draws_anew_each_step():
    cohort = make_cohort(
        [tiny.Dropout(5)] * 2,
        Independent(Graph(2, ())),
        {"logit": sgd(0.0)},
        image_shape=small.IMAGE_SHAPE,
        classes=5,
    )
    state = init_state(cohort, jax.random.key(0))
    step = jax.jit(functools.partial(train_step, cohort))
    state, first = step(state, small.batch())
    state, second = step(state, small.batch())
    assert first[0]["loss/cross_entropy"] != second[0]["loss/cross_entropy"]
