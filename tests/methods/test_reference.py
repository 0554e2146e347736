"""Updates against PyTorch, in float64: all parameters, statistics and optimizer states.

The numbers come from updates.py, peers.py and branches.py in experiments/reference.
"""

import functools
import itertools

import pytest

from afd_jax.engine.optimizers import sgd
from afd_jax.methods import CLILR, DCM, DML, KDCL, MCL, ONE, PCL, Alignment, OKDDip
from afd_jax.networks import CifarResNet
from tests import pytorch, small, tiny

PAIR, UNEQUAL, THREE = [(3, 4, 5)] * 2, [(3, 4, 7), (3, 5, 5)], [(3, 4, 5), (2, 3, 6), (4, 4, 5)]
SECOND = {"second_forward": True, "opt": small.optimizers(nesterov=True, decay="decoupled")}
CASES = {  # widths, method, and more
    "afd_pair": (
        PAIR,
        small.afd(),
        {"make": functools.partial(CifarResNet, depth=8, stem_width=3)},
    ),
    "afd_unequal": (UNEQUAL, small.afd(), {}),
    "afd_cycle": (THREE, small.afd(), {}),
    "afd_second_forward": ([(3, 4, 5), (3, 4, 6)], small.afd(), SECOND),
    "dcm": ([(3, 4, 5), (2, 3, 6)], DCM(depth=2), {}),
    "dml": (THREE, DML(), {}),
    "kdcl_minlogit": (THREE, KDCL(), {}),
    "mcl": (THREE, MCL(size=4), {}),
    "l1": (UNEQUAL, Alignment(distillation_weight=0.0), {}),
    "l2_everyone": (THREE, Alignment(distance="l2"), {"graph": "all_pairs"}),
}


@pytest.mark.parametrize("case", CASES)
def test_two_updates_equal_pytorch(case, double):
    widths, method, more = CASES[case]
    cohort = small.cohort(widths, method=method, **more)
    pytorch.require_equal_updates(cohort.plan, pytorch.read(case))


@pytest.mark.parametrize("method", [ONE, OKDDip, PCL, CLILR])
def test_two_updates_of_branches_equal_pytorch(method, double):
    """Views too: the fixed images of each branch stand in for its augmentation."""
    cohort = small.cohort(
        [tiny.Stages.widths],
        method=method(),
        opt={"logit": sgd(0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)},
        total_steps=4,
        own_augmentation=method is PCL,
    )
    views = itertools.count()

    def next_view(rng, batch):
        return batch["image"][:, next(views) % batch["image"].shape[1]]

    arrays = pytorch.read(method.__name__.lower())
    pytorch.require_equal_updates(cohort.plan, arrays, preprocess=next_view)
