"""The small cohort that most tests use: three layers with few channels, on 8x8 images."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from afd_jax.engine.cohort import Cohort
from afd_jax.engine.init import state_shapes
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


def adjustable():
    """SGD by `with_rates`, so that one compiled step serves for every choice of what moves."""
    sgd_at = optax.inject_hyperparams(optax.sgd)
    return {u: sgd_at(learning_rate=0.0) for u in ("logit", "feature", "discriminator")}


def with_rates(state, **rates: float):
    """The state with new rates by update; those that are not named stand still."""

    def at(rate, tree):
        def set_rate(path, leaf):
            own = getattr(path[-1], "key", None) == "learning_rate"
            return jnp.full(leaf.shape, rate, leaf.dtype) if own else leaf

        return jax.tree.map_with_path(set_rate, tree)

    networks = {
        name: own.replace(optimizers={u: at(rates.get(u, 0), o) for u, o in own.optimizers.items()})
        for name, own in state.networks.items()
    }
    return state.replace(networks=networks)


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


def begin(of: Cohort, seed: int = 0):
    """A first state drawn by NumPy, which is quicker than compiling `Cohort.init`.

    As there, a twin and what follows a student start as it does. Statistics and biases are not
    where they begin, as those of a network that has seen something.
    """
    plan = of.plan

    def drawn(place, tree):
        def draw(path, leaf):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            rng = np.random.default_rng([seed, zlib.crc32(f"{place}/{name}".encode())])
            x = rng.normal(size=leaf.shape)
            if name.endswith(("scale", "var")):
                x = 1 + 0.1 * np.abs(x)
            else:
                x *= 1.4 * np.prod(leaf.shape[:-1]) ** -0.5 if len(leaf.shape) > 1 else 0.1
            return jnp.asarray(x, leaf.dtype)

        return jax.tree.map_with_path(draw, tree)

    def zeros(tree):
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)

    shapes = state_shapes(plan)
    networks = {}
    for name, own in shapes.networks.items():
        place = name if plan.networks[name].role == "teacher" else plan.networks[name].start
        parts = {"params": own.params, "statistics": own.statistics}
        networks[name] = own.replace(
            **{part: drawn(f"{place}/{part}", tree) for part, tree in parts.items()},
            optimizers=zeros(own.optimizers),
        )
    memory = {}
    if plan.memory is not None:
        memory = plan.memory.begin(plan.graph.learners, plan.examples, plan.classes)
    key = jax.random.key_data(jax.random.key(seed))
    return shapes.replace(step=jnp.int32(0), rng=key, networks=networks, memory=memory)


def step_of(of: Cohort, **options):
    """Its step, compiled as plainly as can be."""
    return jax.jit(functools.partial(train_step, of.plan, **options))


def update(of: Cohort, steps: int = 1, state=None):
    """State and metrics after so many steps on one batch."""
    state = begin(of) if state is None else state
    step = step_of(of, detailed=False)
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
