"""Half precision inside the networks' convolutions, single precision everywhere else."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from afd_jax.engine.forward import apply
from afd_jax.engine.step import train_step
from tests import small

FULL = small.cohort(small.UNEQUAL)
HALF = small.cohort(small.UNEQUAL, precision="bfloat16")


def operations(closed):
    """Of a program and of the functions that it calls."""
    for operation in closed.eqns:
        yield operation
        for called in operation.params.values():
            if hasattr(called, "eqns"):
                yield from operations(called)


def test_networks_convolve_in_half_precision_and_return_single():
    own = small.begin(FULL).networks["b"]

    def run(cohort):
        network = cohort.plan.networks["b"]
        images, statistics = small.batch()["image"], own.statistics
        return jax.make_jaxpr(lambda p: apply(cohort.plan, network, p, statistics, images, {}))(
            own.params
        )

    half, full = run(HALF), run(FULL)
    convolutions = [
        {str(v.aval.dtype) for v in e.invars}
        for e in operations(half)
        if e.primitive.name == "conv_general_dilated"
    ]
    # The network's are half, the head's, a transfer layer, is single.
    assert convolutions == [{"bfloat16"}] * 3 + [{"float32"}]
    others = [e for e in operations(half) if e.primitive.name in ("dot_general", "rsqrt")]
    assert others and all(v.aval.dtype == jnp.float32 for e in others for v in e.invars)
    assert [v.dtype for v in half.out_avals] == [v.dtype for v in full.out_avals]
    assert all(v.dtype == jnp.float32 for v in half.out_avals)


def test_a_step_differs_by_rounding_only_and_keeps_the_state_single():
    state, results = small.begin(FULL), {}
    for name, cohort in (("half", HALF), ("full", FULL)):
        step = functools.partial(train_step, cohort.plan, detailed=False)
        results[name] = jax.jit(step)(state, small.batch())
    (half, half_metrics), (full, full_metrics) = results["half"], results["full"]
    half_types, full_types = (jax.tree.map(lambda x: x.dtype, s) for s in (half, full))
    assert half_types == full_types
    for name in "ab":
        ours, theirs = (m[name]["loss/cross_entropy"] for m in (half_metrics, full_metrics))
        assert ours != theirs and abs(ours - theirs) < 0.02 * theirs


def test_a_frozen_network_computes_as_in_evaluation():
    plan = dataclasses.replace(HALF.plan)
    frozen = dataclasses.replace(plan.networks["a"], role="teacher")
    own = small.begin(FULL).networks["a"]
    run = jax.make_jaxpr(
        lambda p: apply(plan, frozen, p, own.statistics, small.batch()["image"], {})
    )(own.params)
    assert not any(v.aval.dtype == jnp.bfloat16 for e in operations(run) for v in e.outvars)
