"""The small cohort that most tests use: three layers with few channels, on 8x8 images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from afd_jax.engine.cohort import Cohort
from afd_jax.engine.optimizers import adam, sgd
from afd_jax.engine.step import train_step
from afd_jax.methods import AFD
from afd_jax.methods.critic import Critic
from tests import tiny

CLASSES = 5
IMAGE_SHAPE = (8, 8, 2)
SHAPES = {"image_shape": IMAGE_SHAPE, "classes": CLASSES}
EQUAL, UNEQUAL = ((3, 4, 5), (3, 4, 5)), ((3, 4, 5), (3, 4, 7))


def afd(loss="least_squares", **options) -> AFD:
    """With a discriminator that is small, too."""
    return AFD(critic=Critic(widths=(4, 6), loss=loss), **options)


def optimizers(nesterov: bool = False, decay: str = "gradient"):
    slow = adam(1e-2, weight_decay=0.1, decay=decay)
    fast = sgd(0.1, momentum=0.9, weight_decay=1e-3, nesterov=nesterov)
    return {"logit": fast, "feature": slow, "discriminator": slow}


def one_moves(update: str, rate: float = 0.1):
    """Optimizers of which all but one stand still."""
    return {u: sgd(rate if u == update else 0.0) for u in ("logit", "feature", "discriminator")}


def cohort(widths=EQUAL, *, method=None, opt=None, make=tiny.Stages, **settings) -> Cohort:
    """Networks "a", "b", ...; settings as for a `Cohort`."""
    return Cohort(
        {name: make(CLASSES, widths=w) for name, w in zip("abcd", widths, strict=False)},
        method or afd(),
        optimizers=opt or optimizers(),
        **{**SHAPES, **settings},
    )


def batch(size: int = 16, seed: int = 0) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        "image": jnp.asarray(rng.normal(size=(size, *IMAGE_SHAPE)), jnp.float32),
        "label": jnp.asarray(rng.integers(CLASSES, size=size), jnp.int32),
        "index": jnp.arange(size, dtype=jnp.int32),
    }


def step_of(of: Cohort, **options):
    """Its step, compiled as plainly as can be."""
    return jax.jit(functools.partial(train_step, of.plan, **options))


def update(of: Cohort, steps: int = 1, state=None):
    """State and metrics after so many steps on one batch."""
    state = of.init(jax.random.key(0)) if state is None else state
    step = step_of(of)
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
