"""Updates against PyTorch, in float64: all parameters, statistics and optimizer states.

The numbers come from updates.py and branches.py in experiments/reference.
"""

import functools
import itertools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax.build import make_cohort
from afd_jax.cohort import init_state
from afd_jax.graph import Graph, all_pairs, cyclic_pairs
from afd_jax.methods import AFD, CLILR, DML, KDCL, ONE, PCL, Alignment, OKDDip
from afd_jax.networks import CifarResNet
from afd_jax.optim import sgd
from afd_jax.step import train_step
from tests import small

FOLDER = pathlib.Path(__file__).parent / "reference"
PAIR, UNEQUAL, THREE = [(3, 4, 5)] * 2, [(3, 4, 7), (3, 5, 5)], [(3, 4, 5), (2, 3, 6), (4, 4, 5)]
ADVERSARIAL = ("cross_entropy", "distillation", "generator", "discriminator")
afd = functools.partial(AFD, widths=(4, 6))
CASES = {  # networks, method, graph, loss terms
    "afd_pair": (PAIR, afd, cyclic_pairs, ADVERSARIAL),
    "afd_unequal": (UNEQUAL, afd, cyclic_pairs, ADVERSARIAL),
    "afd_cycle": (THREE, afd, cyclic_pairs, ADVERSARIAL),
    "afd_second_forward": (
        [(3, 4, 5), (3, 4, 6)],
        functools.partial(afd, second_forward=True),
        cyclic_pairs,
        ADVERSARIAL,
    ),
    "dml": (THREE, DML, all_pairs, ("cross_entropy", "distillation")),
    "kdcl_naive": (
        THREE,
        functools.partial(KDCL, target="naive", own_augmentation=False),
        all_pairs,
        ("cross_entropy", "distillation"),
    ),
    "kdcl_minlogit": (THREE, KDCL, all_pairs, ("cross_entropy", "distillation")),
    "l1": (
        UNEQUAL,
        functools.partial(Alignment, distillation_weight=0.0),
        cyclic_pairs,
        ("cross_entropy", None, "alignment"),
    ),
    "l1_and_logits": (
        PAIR,
        Alignment,
        cyclic_pairs,
        ("cross_entropy", "distillation", "alignment"),
    ),
    "l2_everyone": (
        THREE,
        functools.partial(Alignment, distance="l2"),
        all_pairs,
        ("cross_entropy", "distillation", "alignment"),
    ),
}
ROLES = {"trace": "momentum_buffer", "mu": "exp_avg", "nu": "exp_avg_sq"}


def reference_name(path) -> str | None:
    """The name of a leaf of the state in the PyTorch script's files."""
    name = jax.tree_util.keystr(path, simple=True, separator="/").removeprefix("peers/")
    name = name.replace("projections/transfer", "transfer")
    name = re.sub(r"discriminators/from_\d/(params|batch_stats)", r"\1/discriminator", name)
    name = re.sub(r"statistics/(\w+)/batch_stats", r"batch_stats/\1", name)
    if match := re.fullmatch(r"(\d)/(params|batch_stats)/(.*)", name):
        kind = "params" if match[2] == "params" else "statistics"
        return f"{kind}/{match[1]}/{match[3]}"
    if match := re.fullmatch(r"(\d)/optimizers/(\w+)/.*?(trace|mu|nu)/(.*)", name):
        rest = re.sub(r"^from_\d", "discriminator", match[4])
        return f"{match[2]}/{ROLES[match[3]]}/{match[1]}/{rest}"
    return None


@pytest.mark.parametrize("case", CASES)
def test_two_updates_equal_pytorch(case, double):
    widths, method, shape, terms = CASES[case]
    second = case == "afd_second_forward"
    opt = small.optimizers(nesterov=second, decay="decoupled" if second else "gradient")
    resnet = functools.partial(CifarResNet, depth=8, stem_width=3)
    graph = Graph(len(widths), shape(len(widths)))
    cohort = small.cohort(widths, make=resnet, opt=opt, method=method(graph))
    arrays = read(case)
    state = state_before(cohort, arrays)
    step = jax.jit(functools.partial(train_step, cohort))
    for i in range(2):
        state, metrics = step(state, batch_of(arrays, i))
        assert {f"loss/{t}" for t in terms if t} == {n for n in metrics[0] if "loss/" in n}
        for t, term in enumerate(terms):
            if term is None:  # left out here, zero there
                continue
            ours = [m[f"loss/{term}"] for m in metrics]
            np.testing.assert_allclose(ours, arrays["losses"][i, t], rtol=1e-6)

    check_state_after(state, arrays)


@pytest.mark.parametrize("method", [ONE, OKDDip, PCL, CLILR])
def test_two_updates_of_branches_equal_pytorch(method, double):
    """Views too: the fixed images of each branch stand in for its augmentation."""
    network = CifarResNet(small.CLASSES, depth=8, widths=(3, 4, 5), stem_width=3)
    cohort = make_cohort(
        [network],
        method(),
        {"logit": sgd(0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)},
        image_shape=small.IMAGE_SHAPE,
        classes=small.CLASSES,
        total_steps=4,
    )
    arrays = read(method.__name__.lower())
    state = state_before(cohort, arrays)
    views = itertools.count()

    def next_view(rng, batch):
        return batch["image"][:, next(views) % batch["image"].shape[1]]

    step = jax.jit(functools.partial(train_step, cohort, preprocess=next_view))
    for i in range(2):
        state, metrics = step(state, batch_of(arrays, i))
        ours = {
            f"losses/{k}/{name.removeprefix('loss/')}": value
            for k, node in enumerate(metrics)
            for name, value in node.items()
            if name.startswith("loss/")
        }
        assert set(ours) == {name for name in arrays if name.startswith("losses/")}
        for name, value in ours.items():
            np.testing.assert_allclose(value, arrays[name][i], rtol=1e-6, err_msg=name)
    check_state_after(state, arrays)


def read(case):
    with np.load(FOLDER / f"update_{case}.npz") as file:
        return {name: file[name] for name in file.files}


def batch_of(arrays, i):
    return {
        "image": jnp.asarray(arrays["images"][i]),
        "label": jnp.asarray(arrays["labels"][i]),
        "index": jnp.arange(6, dtype=jnp.int32),
    }


def state_before(cohort, arrays):
    used = set()

    def load(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        name = f"before/{reference_name(path)}"
        if name not in arrays:  # optimizer states start at zero
            assert "/exp_avg" in name or "/momentum_buffer" in name, name
            return jnp.zeros(leaf.shape, jnp.float64)
        assert arrays[name].shape == leaf.shape, name
        used.add(name)
        return jnp.asarray(arrays[name])

    state = jax.tree_util.tree_map_with_path(load, init_state(cohort, jax.random.key(0)))
    assert used == {name for name in arrays if name.startswith("before/")}
    return state


def check_state_after(state, arrays):
    used = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            name = f"after/{reference_name(path)}"
            assert leaf.dtype == jnp.float64, name
            used.add(name)
            np.testing.assert_allclose(leaf, arrays[name], rtol=1e-6, atol=1e-12, err_msg=name)
    assert used == {name for name in arrays if name.startswith("after/")}
