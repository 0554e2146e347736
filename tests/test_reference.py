"""Updates against PyTorch, in float64: all parameters, statistics and optimizer states.

The numbers come from updates.py and branches.py in experiments/reference.
"""

import functools
import itertools

import pytest

from afd_jax.engine.build import make_cohort
from afd_jax.graph import Graph, all_pairs, cyclic_pairs
from afd_jax.methods import AFD, CLILR, DML, KDCL, ONE, PCL, Alignment, OKDDip
from afd_jax.networks import CifarResNet
from afd_jax.engine.optimizers import sgd
from tests import pytorch, small, tiny

PAIR, UNEQUAL, THREE = [(3, 4, 5)] * 2, [(3, 4, 7), (3, 5, 5)], [(3, 4, 5), (2, 3, 6), (4, 4, 5)]
afd = functools.partial(AFD, widths=(4, 6))
CASES = {  # widths, method, graph
    "afd_pair": (PAIR, afd, cyclic_pairs),
    "afd_unequal": (UNEQUAL, afd, cyclic_pairs),
    "afd_cycle": (THREE, afd, cyclic_pairs),
    "afd_second_forward": (
        [(3, 4, 5), (3, 4, 6)],
        functools.partial(afd, second_forward=True),
        cyclic_pairs,
    ),
    "dml": (THREE, DML, all_pairs),
    "kdcl_minlogit": (THREE, KDCL, all_pairs),
    "l1": (UNEQUAL, functools.partial(Alignment, distillation_weight=0.0), cyclic_pairs),
    "l2_everyone": (THREE, functools.partial(Alignment, distance="l2"), all_pairs),
}
RESNET = functools.partial(CifarResNet, depth=8, stem_width=3)


@pytest.mark.parametrize("case", CASES)
def test_two_updates_equal_pytorch(case, double):
    widths, method, shape = CASES[case]
    second = case == "afd_second_forward"
    cohort = small.cohort(
        widths,
        make=RESNET if case == "afd_pair" else tiny.Stages,
        opt=small.optimizers(nesterov=second, decay="decoupled" if second else "gradient"),
        method=method(Graph(len(widths), shape(len(widths)))),
    )
    pytorch.require_equal_updates(cohort, pytorch.read(case))


@pytest.mark.parametrize("method", [ONE, OKDDip, PCL, CLILR])
def test_two_updates_of_branches_equal_pytorch(method, double):
    """Views too: the fixed images of each branch stand in for its augmentation."""
    cohort = make_cohort(
        [tiny.Stages(small.CLASSES)],
        method(),
        {"logit": sgd(0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)},
        image_shape=small.IMAGE_SHAPE,
        classes=small.CLASSES,
        total_steps=4,
    )
    views = itertools.count()

    def next_view(rng, batch):
        return batch["image"][:, next(views) % batch["image"].shape[1]]

    arrays = pytorch.read(method.__name__.lower())
    pytorch.require_equal_updates(cohort, arrays, preprocess=next_view)
