"""Updates against PyTorch, in float64: methods that act on logits.

The numbers come from experiments/reference/logits.py.
"""

from typing import NamedTuple

import numpy as np
import pytest

from afd_jax import methods
from tests import pytorch, small, tiny

STUDENT, PEER, TEACHER, OTHER = (3, 4, 5), (2, 3, 6), (4, 5, 6), (2, 4, 7)
TWO = (TEACHER, OTHER)
LSKD = {"temperature": 2.0, "label_weight": 0.1, "distillation_weight": 9.0, "standardize": True}
EDGES = (("a", "b", "dml"), ("b", "a", "dml"), ("teacher", "a", "kd"))
STRONG = {"temperature": 4.0, "inter_class_weight": 2.0, "intra_class_weight": 2.0}


class Case(NamedTuple):
    method: str
    options: dict
    teachers: tuple = (TEACHER,)
    peers: tuple = ()


CASES = {
    "lskd": Case("kd", LSKD, TWO),
    "lskd_dml": Case("dml", {"standardize": True}, (), (PEER,)),
    "dkd": Case("dkd", {}, TWO),
    "dist": Case("dist", STRONG),
    "ctkd": Case("ctkd", {}),
    "ensemble_kd": Case("ensemble_kd", {}, TWO),
    "ensemble_kd_mean": Case("ensemble_kd", {**LSKD, "label_weight": 1.0, "gate": "mean"}, TWO),
    "mixed": Case("mixed", {"by_edge": EDGES}, peers=(PEER,)),
    "switokd": Case("switokd", {"pausing": ("b",)}, (), (PEER,)),
    "switokd_at_first": Case("switokd", {"pausing": ["b"]}, (), (PEER,)),
    "switokd_three": Case("switokd", {"pausing": ("b", "c")}, (), (PEER, OTHER)),
}


@pytest.mark.parametrize("name", CASES)
def test_two_updates_equal_pytorch(name, double):
    case, arrays = CASES[name], pytorch.read(name)
    cohort = small.cohort(
        [STUDENT, *case.peers],
        method=methods.make(case.method, case.options),
        teachers=[tiny.Stages(small.CLASSES, widths=widths) for widths in case.teachers],
        total_steps=2,
        steps_per_epoch=1,
    )
    pytorch.require_equal_updates(cohort.plan, arrays)
    if case.method == "switokd":
        found, state = [], pytorch.state_before(cohort.plan, arrays)
        step = small.step_of(cohort)
        for i in range(2):
            state, metrics = step(state, pytorch.batch_of(arrays, i))
            assert "paused" not in metrics["a"]
            found.append([metrics[name]["paused"] for name in cohort.graph.names[1:]])
        np.testing.assert_array_equal(found, arrays["pauses"])
        assert np.min(found) == 0 and np.max(found) == 1
