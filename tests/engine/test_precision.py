"""Half precision inside the networks, single precision everywhere else."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from afd_jax.engine.build import make_cohort
from afd_jax.errors import SettingError
from afd_jax.engine.forward import apply_peer
from afd_jax.engine.init import init_state
from afd_jax.engine.step import train_step
from tests import small

FULL = small.cohort()
HALF = dataclasses.replace(FULL, precision="bfloat16")


def operations(closed):
    """Of a program and of the functions that it calls."""
    for operation in closed.eqns:
        yield operation
        for called in operation.params.values():
            if hasattr(called, "eqns"):
                yield from operations(called)


def test_networks_compute_in_half_precision_and_return_single():
    peer = init_state(FULL, jax.random.key(0)).peers[0]
    images = small.batch()["image"]

    def run(cohort):
        return jax.make_jaxpr(
            lambda params: apply_peer(cohort, 0, params, peer.statistics, images, {})
        )(peer.params)

    half, full = run(HALF), run(FULL)
    convolutions = [e for e in operations(half) if e.primitive.name == "conv_general_dilated"]
    assert convolutions
    assert all(v.aval.dtype == jnp.bfloat16 for e in convolutions for v in e.invars)
    assert [v.dtype for v in half.out_avals] == [v.dtype for v in full.out_avals]
    assert all(v.dtype == jnp.float32 for v in half.out_avals)


def test_a_step_differs_by_rounding_only_and_keeps_the_state_single():
    state = init_state(FULL, jax.random.key(0))
    results = {}
    for name, cohort in (("half", HALF), ("full", FULL)):
        results[name] = jax.jit(functools.partial(train_step, cohort))(state, small.batch())
    (half, half_metrics), (full, full_metrics) = results["half"], results["full"]
    half_types, full_types = (jax.tree.map(lambda x: x.dtype, s) for s in (half, full))
    assert half_types == full_types
    for ours, theirs in zip(half_metrics, full_metrics, strict=True):
        ours, theirs = ours["loss/cross_entropy"], theirs["loss/cross_entropy"]
        assert ours != theirs and abs(ours - theirs) < 0.02 * theirs


def test_unknown_precision_is_named():
    with pytest.raises(SettingError, match="precision = 'bf16': did you mean 'bfloat16'"):
        make_cohort([], FULL.method, {}, image_shape=small.IMAGE_SHAPE, classes=5, precision="bf16")
