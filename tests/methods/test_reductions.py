"""Methods that become others with some of their weights zero, on smaller graphs, or for a twin."""

import functools

import jax
import pytest

from afd_jax.graph import Graph, all_pairs, cyclic_pairs
from afd_jax.engine.init import init_state
from afd_jax.methods import AFD, DML, KDCL, Alignment, Independent
from tests import small
from tests.leaves import changed

UNEQUAL = ((3, 4, 5), (3, 4, 7))


@pytest.mark.parametrize(
    "method",
    [
        functools.partial(AFD, distillation_weight=0.0, adversarial_weight=0.0),
        functools.partial(Alignment, distillation_weight=0.0, alignment_weight=0.0),
        functools.partial(DML, distillation_weight=0.0),
        functools.partial(KDCL, distillation_weight=0.0),
    ],
)
def test_weights_zero_are_independent_training(method):
    graph = Graph(2, cyclic_pairs(2))
    a, _ = small.update(small.cohort(method=method(graph)), steps=2)
    b, _ = small.update(small.cohort(method=Independent(graph)), steps=2)
    assert not changed(a, b)


def test_afd_without_its_adversary_is_softened_mutual_learning():
    graph = Graph(2, cyclic_pairs(2))
    a, _ = small.update(small.cohort(method=AFD(graph, adversarial_weight=0.0)), steps=2)
    b, _ = small.update(small.cohort(method=DML(graph, temperature=3.0)), steps=2)
    assert not changed(a, b)


@pytest.mark.parametrize("second_forward", [False, True])
def test_a_twin_trains_as_if_it_were_alone(second_forward):
    """It starts from the same parameters and ends where independent training ends."""
    options = {"widths": (4, 6), "second_forward": second_forward}
    method = AFD(Graph(2, cyclic_pairs(2)), **options)
    cohort = small.cohort(UNEQUAL, method=method, alone=True)
    assert (len(cohort.peers), cohort.members) == (4, 2)
    state = init_state(cohort, jax.random.key(0))
    assert not changed(state.peers[0].params["network"], state.peers[2].params["network"])
    after, _ = small.update(cohort, steps=2)
    plain, _ = small.update(small.cohort(UNEQUAL, method=Independent(Graph(2, ()))), steps=2)
    for k in (0, 1):
        twin, alone = after.peers[2 + k], plain.peers[k]
        assert small.largest_difference(twin.params, alone.params) < 1e-5
        assert small.largest_difference(twin.statistics, alone.statistics) < 1e-5
        assert changed(after.peers[k].params["network"], twin.params["network"])


def test_cycle_of_two_is_all_pairs_of_two():
    cycle, _ = small.update(small.cohort(method=AFD(Graph(2, cyclic_pairs(2)), widths=(4, 6))))
    pairs, _ = small.update(small.cohort(method=AFD(Graph(2, all_pairs(2)), widths=(4, 6))))
    assert not changed(cycle, pairs)
