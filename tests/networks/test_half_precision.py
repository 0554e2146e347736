"""Under bfloat16 convolutions compute in half precision, all else in single."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax.networks import create
from afd_jax.networks.functional import draw, functional, run
from afd_jax.networks.layers import conv
from afd_jax.networks.staged import StagedNetwork
from tests.networks.shapes import variables

IMAGE = (8, 8, 3)


def halved(variables):
    """The kernels of convolutions in half precision, as the engine does."""

    def half(x):
        return x.astype(jnp.bfloat16) if x.ndim in (4, 5) else x

    return {**variables, "params": jax.tree.map(half, variables["params"])}


def operations(closed):
    for operation in closed.eqns:
        yield operation
        for called in operation.params.values():
            if hasattr(called, "eqns"):
                yield from operations(called)


def types(values):
    return {v.aval.dtype for v in values if jnp.issubdtype(v.aval.dtype, jnp.floating)}


@pytest.mark.parametrize(
    "name",
    [
        "resnet8",
        "resnet56",
        "wrn-16-1",
        "preact_resnet18",
        "densenet-40-12",
        "okddip_vgg16",
        "mobilenet_v2",
        "shufflenet_v2",
    ],
)
@pytest.mark.parametrize("train", [False, True])
def test_only_convolutions_compute_in_half_precision(name, train):
    network, side = functional(create(name, 10)), 32 if "vgg" in name else 16
    images = jnp.zeros((2, side, side, 3))
    own = jax.eval_shape(halved, variables(network))
    answer = functools.partial(network.apply, x=images, train=train)
    found = list(operations(jax.make_jaxpr(lambda v: answer(v))(own)))
    convolutions = [e for e in found if e.primitive.name == "conv_general_dilated"]
    products = [e for e in found if e.primitive.name == "dot_general"]
    assert convolutions and products
    assert all(types(e.invars) == {jnp.dtype("bfloat16")} for e in convolutions)
    assert all(types(e.invars) == {jnp.dtype("float32")} for e in products)
    for statistic in ("rsqrt", "reduce_sum"):
        means = [e for e in found if e.primitive.name == statistic]
        assert means and all(types(e.invars) == {jnp.dtype("float32")} for e in means)
    outputs, statistics = jax.eval_shape(answer, own)
    assert {x.dtype for x in jax.tree.leaves((outputs, statistics))} == {jnp.dtype("float32")}
    for stages in range(1, network.module.stage_count):
        lower = functools.partial(network.module.apply, train=False, stages=stages, method="lower")
        assert jax.eval_shape(lower, own, images).dtype == jnp.float32


class Bare(StagedNetwork):
    """Ends in a convolution."""

    def stage(self, index, x, train):
        return conv(4, 3, name=f"stage{index + 1}")(x)


def test_maps_of_a_network_of_ones_own_are_single():
    network = functional(Bare(10))
    own = jax.eval_shape(halved, variables(network, IMAGE))
    assert jnp.dtype("bfloat16") in {x.dtype for x in jax.tree.leaves(own)}
    images = jnp.zeros((2, *IMAGE))
    outputs, _ = jax.eval_shape(functools.partial(network.apply, x=images, train=False), own)
    assert {x.dtype for x in jax.tree.leaves(outputs)} == {jnp.dtype("float32")}


def test_values_differ_by_rounding_only():
    network = functional(create("resnet8", 10))
    own = draw(network, IMAGE, 0, jax.random.key(0))
    images = jax.random.normal(jax.random.key(1), (4, *IMAGE))
    full, half = (run(network, v, images, {}, train=True)[0] for v in (own, halved(own)))
    difference = np.max(np.abs(full.logits - half.logits))
    assert 0 < difference < 0.05 * np.max(np.abs(full.logits))
