"""Optimizers against NumPy written from the papers; clipping; warm-up in every schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from afd_jax.engine.optimizers import OPTIMIZERS, SCHEDULES, adam, adamw, lamb, lars, sgd
from afd_jax.engine.trains import only
from afd_jax.errors import SettingError

RNG = np.random.default_rng(0)
START = {"kernel": RNG.normal(size=(3, 2)), "bias": RNG.normal(size=2)}
GRADIENTS = [{n: RNG.normal(size=x.shape) for n, x in START.items()} for _ in range(4)]


def run(optimizer, gradients=GRADIENTS):
    params = jax.tree.map(jnp.asarray, START)
    state = optimizer.init(params)
    for gradient in gradients:
        steps, state = optimizer.update(jax.tree.map(jnp.asarray, gradient), state, params)
        params = optax.apply_updates(params, steps)
    return params


def moments(name, decoupled, rate, decay, b1=0.9, b2=0.99, eps=1e-6):
    """AdamW as PyTorch documents it, or LAMB as its Algorithm 2."""
    x, m, v = START[name].copy(), 0.0, 0.0
    for t, gradient in enumerate(GRADIENTS, 1):
        g = gradient[name]
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        direction = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        if decoupled:
            x = x * (1 - rate * decay) - rate * direction
        else:
            direction = direction + decay * x
            x = x - rate * direction * np.linalg.norm(x) / np.linalg.norm(direction)
    return x


@pytest.mark.parametrize(("make", "decoupled"), [(adamw, True), (lamb, False)])
def test_adamw_and_lamb_equal_numpy(make, decoupled):
    found = run(make(0.1, b2=0.99, eps=1e-6, weight_decay=0.3))
    for name, x in found.items():
        np.testing.assert_allclose(x, moments(name, decoupled, 0.1, 0.3), rtol=1e-4)


def test_adamw_is_adam_with_decoupled_decay():
    jax.tree.map(
        np.testing.assert_array_equal,
        run(adamw(0.1, weight_decay=0.3)),
        run(adam(0.1, weight_decay=0.3, decay="decoupled")),
    )


def test_lars_equals_numpy_and_leaves_vectors_to_sgd():
    found = run(lars(0.5, momentum=0.8, weight_decay=0.3, trust=0.02))
    for name, x in START.items():
        x, moved = x.copy(), 0.0
        for gradient in GRADIENTS:
            g = gradient[name]
            if name == "kernel":
                g = g + 0.3 * x
                g = g * 0.02 * np.linalg.norm(x) / np.linalg.norm(g)
            moved = 0.8 * moved + 0.5 * g
            x = x - moved
        np.testing.assert_allclose(found[name], x, rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_clip_scales_a_gradient_that_is_longer(name):
    norms = [np.sqrt(sum(np.sum(x**2) for x in g.values())) for g in GRADIENTS]
    clip = float(np.median(norms))  # some are longer, some are not
    pairs = zip(GRADIENTS, norms, strict=True)
    by_hand = [{k: x * min(1, clip / n) for k, x in g.items()} for g, n in pairs]
    found, plain = run(OPTIMIZERS[name](0.1, clip=clip)), run(OPTIMIZERS[name](0.1))
    expected = run(OPTIMIZERS[name](0.1), by_hand)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)
    assert np.max(np.abs(found["bias"] - plain["bias"])) > 1e-5  # LARS norms kernels
    jax.tree.map(np.testing.assert_array_equal, run(OPTIMIZERS[name](0.1, clip=1e9)), plain)


def test_the_norm_is_over_what_an_update_moves():
    """A parameter that the update leaves alone does not count, however long its gradient."""
    optimizer = only(sgd(1.0, clip=1.0), {"kernel": True, "bias": False})
    gradient = {"kernel": np.full((3, 2), 0.1), "bias": np.full(2, 1e6)}
    moved = run(optimizer, [gradient])
    np.testing.assert_allclose(moved["kernel"], START["kernel"] - 0.1, rtol=1e-6)
    np.testing.assert_allclose(moved["bias"], START["bias"], rtol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_warms_up(schedule):
    rate = SCHEDULES[schedule](0.4, 200, warmup=0.1)
    rise = [float(rate(step)) for step in range(21)]
    np.testing.assert_allclose(rise, 0.4 * np.arange(21) / 20, rtol=1e-6)
    assert float(rate(0)) == 0 < float(rate(100)) <= 0.4 + 1e-6
    assert float(SCHEDULES[schedule](0.4, 200)(0)) == pytest.approx(0.4)


def test_short_runs_neither_only_warm_up_nor_begin_with_the_last_rate():
    for make in SCHEDULES.values():
        rate = make(0.4, 10, warmup=0.99)
        np.testing.assert_allclose([rate(s) for s in range(9)], 0.4 * np.arange(9) / 9, rtol=1e-5)
        assert float(rate(9)) > 0
        assert float(make(0.4, 1, warmup=0.5)(0)) == pytest.approx(0.4)
    assert float(SCHEDULES["step"](0.4, 10, at=(0.01,))(0)) == pytest.approx(0.4)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_follows_the_warm_up(name, schedule):
    """The first step has rate 0, the second a tenth: what rate 0 and then 0.1 would do."""
    warmed = OPTIMIZERS[name](SCHEDULES[schedule](1.0, 100, warmup=0.1))
    by_hand = OPTIMIZERS[name](lambda step: jnp.where(step == 0, 0.0, 0.1))
    found, expected = run(warmed, GRADIENTS[:2]), run(by_hand, GRADIENTS[:2])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)
    still = run(warmed, GRADIENTS[:1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), still, START)
    assert np.max(np.abs(found["kernel"] - START["kernel"])) > 1e-5


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip", [0, -1.0, "1", True])
def test_a_clip_that_is_no_positive_number_is_named(name, clip):
    with pytest.raises(SettingError, match=r"clip = .*must be a number and greater than 0"):
        OPTIMIZERS[name](0.1, clip=clip)
