"""One device, pmap, shard_map and jit over eight fake devices: the same numbers."""

import functools

import jax
import numpy as np
import pytest

from afd_jax.data import Recipe
from afd_jax.errors import SettingError
from afd_jax.engine.evaluate import eval_step
from afd_jax.engine.init import init_state
from afd_jax.engine.devices import make_parallel
from afd_jax.engine.step import train_step
from afd_jax.engine.synchronised import synchronised
from tests import small

RECIPE = Recipe(mean=(0.5, 0.4), std=(0.2, 0.3), pad=2, pad_mode="reflect", flip=True)


def uint8_batch(seed):
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(256, size=(32, *small.IMAGE_SHAPE), dtype=np.uint8),
        "label": rng.integers(small.CLASSES, size=32, dtype=np.int32),
        "index": rng.permutation(1000)[:32].astype(np.int32),
    }


def three_steps(mode, devices):
    """State after three steps with augmentation, last metrics, and compilations after step one."""
    parallel = make_parallel(mode, devices)
    cohort = parallel.prepare(small.cohort(((3, 4, 5), (3, 4, 7))))
    state = parallel.put_state(init_state(cohort, jax.random.key(0)))
    step = parallel.compile(
        functools.partial(train_step, cohort, preprocess=RECIPE.train), donate=True
    )
    compilations = []

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            compilations.append(event)

    state, metrics = step(state, parallel.put_batch(uint8_batch(0)))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for seed in (1, 2):
            state, metrics = step(state, parallel.put_batch(uint8_batch(seed)))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    evaluate = parallel.compile(
        functools.partial(eval_step, cohort, preprocess=RECIPE.test), donate=False
    )
    batch = {**uint8_batch(3), "mask": np.arange(32) < 27}
    sums = evaluate(state, parallel.put_batch(batch))
    return jax.device_get((state.peers, metrics, sums)), compilations


@pytest.fixture(scope="module")
def one_device():
    return three_steps("jit", 1)[0]


@pytest.mark.parametrize("mode", ["pmap", "shard_map", "jit"])
def test_eight_devices_equal_one(mode, one_device):
    (state, metrics, sums), compilations = three_steps(mode, 8)
    assert small.largest_difference(state, one_device[0]) < 1e-5
    assert small.largest_difference(metrics, one_device[1]) < 1e-5
    assert small.largest_difference(sums, one_device[2]) < 1e-5
    assert not compilations


def test_without_synchronised_norm_they_differ(one_device):
    """The comparison above can fail: leave the device axis out of BatchNorm and see it do so."""
    parallel = make_parallel("pmap", 8)
    cohort = small.cohort(((3, 4, 5), (3, 4, 7)))
    state = parallel.put_state(init_state(cohort, jax.random.key(0)))
    step = parallel.compile(
        functools.partial(train_step, cohort, preprocess=RECIPE.train), donate=True
    )
    for seed in range(3):
        state, _ = step(state, parallel.put_batch(uint8_batch(seed)))
    assert small.largest_difference(jax.device_get(state.peers), one_device[0]) > 1e-3


def test_each_gradient_is_averaged_in_one_piece():
    cohort = synchronised(small.cohort(), "data")
    state = init_state(cohort, jax.random.key(0))
    step = functools.partial(train_step, cohort, axis_name="data")
    jaxpr = jax.make_jaxpr(step, axis_env=[("data", 2)])(state, small.batch())
    averaged = [v.aval.size for e in jaxpr.eqns if e.primitive.name == "psum" for v in e.invars]
    counts = [
        sum(x.size for x in jax.tree.leaves(part))
        for peer in state.peers
        for part in (peer.params, peer.params, [d["params"] for d in peer.discriminators.values()])
    ]
    widest = 12  # statistics of BatchNorm, two for each channel
    assert sorted(size for size in averaged if size > widest) == sorted(counts)


def test_auto_is_pmap_on_several_devices():
    assert make_parallel("auto").mode == "pmap" and len(make_parallel("auto").devices) == 8
    assert make_parallel("auto", 1).mode == "jit"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: make_parallel("pmapp"), "parallel.mode = 'pmapp': did you mean 'pmap'"),
        (lambda: make_parallel("jit", 9), "parallel.devices = 9: must be a whole number"),
        (lambda: make_parallel("pmap", 8).check_batch_size("batch_size", 12), "multiple of the 8"),
    ],
)
def test_bad_devices_are_named(make, words):
    with pytest.raises(SettingError, match=words):
        make()
