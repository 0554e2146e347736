"""The small cohort that most tests use: three layers with few channels, on 8x8 images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from afd_jax.engine.build import make_cohort
from afd_jax.engine.cohort import Cohort
from afd_jax.graph import Graph, cyclic_pairs
from afd_jax.engine.init import init_state
from afd_jax.methods import AFD
from afd_jax.engine.optimizers import adam, sgd
from afd_jax.engine.step import train_step
from tests import tiny

CLASSES = 5
IMAGE_SHAPE = (8, 8, 2)


def optimizers(nesterov: bool = False, decay: str = "gradient"):
    slow = adam(1e-2, weight_decay=0.1, decay=decay)
    fast = sgd(0.1, momentum=0.9, weight_decay=1e-3, nesterov=nesterov)
    return {"logit": fast, "feature": slow, "discriminator": slow}


def cohort(
    widths=((3, 4, 5), (3, 4, 5)),
    *,
    method=None,
    opt=None,
    alone=False,
    make=tiny.Stages,
    **options,
) -> Cohort:
    networks = [make(CLASSES, widths=w) for w in widths]
    graph = Graph(len(widths), cyclic_pairs(len(widths)))
    return make_cohort(
        networks,
        method or AFD(graph, widths=(4, 6), **options),
        opt or optimizers(),
        image_shape=IMAGE_SHAPE,
        classes=CLASSES,
        alone=alone,
    )


def batch(size: int = 16, seed: int = 0) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        "image": jnp.asarray(rng.normal(size=(size, *IMAGE_SHAPE)), jnp.float32),
        "label": jnp.asarray(rng.integers(CLASSES, size=size), jnp.int32),
        "index": jnp.arange(size, dtype=jnp.int32),
    }


def update(of: Cohort, steps: int = 1):
    """State and metrics after so many steps on one batch."""
    state = init_state(of, jax.random.key(0))
    step = jax.jit(functools.partial(train_step, of))
    for _ in range(steps):
        state, metrics = step(state, batch())
    return state, metrics


def largest_difference(a, b) -> float:
    """Over all leaves, relative to the size of the leaf's values."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    differences = [
        np.max(np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)), initial=0.0)
        / max(1e-3, np.max(np.abs(np.asarray(y, np.float64)), initial=0.0))
        for x, y in pairs
        if jnp.issubdtype(x.dtype, jnp.number)
    ]
    return max(differences)
