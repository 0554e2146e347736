"""Methods that become others with some of their weights zero, on smaller graphs, or for a twin."""

import functools
import re

import jax
import pytest

from afd_jax.engine.step import train_step
from afd_jax.methods import AFD, DML, KDCL, Alignment, Independent
from tests import small, tiny
from tests.leaves import changed


def program(cohort):
    """The step as text: what is computed from what, without its addresses."""
    step = functools.partial(train_step, cohort.plan)
    text = str(jax.make_jaxpr(step)(small.begin(cohort), small.batch()))
    return re.sub(r"0x[0-9a-f]+", "", text)


def tiny_pair(method):
    return small.cohort(method=method, make=lambda classes, widths: tiny.Tiny(classes))


@pytest.fixture(scope="module")
def independent():
    return small.update(tiny_pair(Independent()), steps=2)[0]


@pytest.mark.parametrize(
    "method",
    [
        AFD(distillation_weight=0.0, adversarial_weight=0.0),
        Alignment(distillation_weight=0.0, alignment_weight=0.0),
        DML(distillation_weight=0.0),
        KDCL(distillation_weight=0.0),
    ],
    ids=lambda method: type(method).__name__,
)
def test_weights_zero_are_independent_training(method, independent):
    assert not changed(small.update(tiny_pair(method), steps=2)[0], independent)


def test_afd_without_its_adversary_is_softened_mutual_learning():
    ours = program(small.cohort(method=AFD(adversarial_weight=0.0)))
    theirs = program(small.cohort(method=DML(temperature=3.0), graph="cyclic"))
    assert ours == theirs
    assert ours != program(small.cohort(method=DML(temperature=2.0), graph="cyclic"))


def test_cycle_of_two_is_all_pairs_of_two():
    cycle, pairs = (small.cohort(graph=shape) for shape in ("cyclic", "all_pairs"))
    assert {*cycle.graph.edges} == {*pairs.graph.edges}
    assert program(cycle) == program(pairs)


@pytest.mark.parametrize("second_forward", [False, True])
def test_a_twin_trains_as_if_it_were_alone(second_forward):
    """It starts from the same parameters and ends where independent training ends."""
    cohort = small.cohort(small.UNEQUAL, twins=True, second_forward=second_forward)
    assert cohort.graph.names == ("a", "b", "a alone", "b alone")
    state = cohort.init(jax.random.key(0)) if not second_forward else small.begin(cohort)
    for name in "ab":
        own, twin = state.networks[name], state.networks[f"{name} alone"]
        assert not changed(own.params["network"], twin.params["network"])
    after, _ = small.update(cohort, steps=2, state=state)
    alone = small.cohort(small.UNEQUAL, method=Independent())
    start = small.begin(alone)
    networks = {
        name: own.replace(
            params={"network": state.networks[name].params["network"], "heads": {}},
            statistics={"network": state.networks[name].statistics["network"], "heads": {}},
        )
        for name, own in start.networks.items()
    }
    plain, _ = small.update(alone, steps=2, state=start.replace(networks=networks))
    for name in "ab":
        twin, own = after.networks[f"{name} alone"], plain.networks[name]
        assert small.largest_difference(twin.params, own.params) < 1e-5
        assert small.largest_difference(twin.statistics, own.statistics) < 1e-5
        assert changed(after.networks[name].params["network"], twin.params["network"])
