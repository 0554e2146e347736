"""Layers in the form that is quick on the CPU give what the plain form gives."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from afd_jax.compiler import training_options
from afd_jax.cost import flops_per_image
from afd_jax.networks import chain, create
from afd_jax.networks.convolution import conv_general_dilated
from afd_jax.networks.layers import relu

LAYOUT = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads"),
    [
        ((5, 6), 3, 1, ((1, 1), (1, 1))),
        ((9, 8), 3, 2, ((1, 1), (1, 1))),
        ((9, 8), 1, 2, ((0, 0), (0, 0))),
        ((11, 10), 5, 3, ((2, 1), (0, 2))),
        ((7, 9), 4, 2, ((0, 0), (1, 0))),
    ],
)
def test_gradients_of_a_convolution_are_those_of_jax(size, kernel, stride, pads):
    images = jax.random.normal(jax.random.key(0), (2, *size, 3))
    weights = jax.random.normal(jax.random.key(1), (kernel, kernel, 3, 5))

    def gradients(convolve):
        def loss(images, weights):
            out = convolve(
                images,
                weights,
                (stride, stride),
                pads,
                lhs_dilation=(1, 1),
                rhs_dilation=(1, 1),
                dimension_numbers=LAYOUT,
                feature_group_count=1,
            )
            return jnp.sum(jnp.sin(out))

        return jax.grad(loss, (0, 1))(images, weights)

    ours, theirs = gradients(conv_general_dilated), gradients(lax.conv_general_dilated)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_relu_is_flax_relu():
    x = jnp.array([-jnp.inf, -2.0, -0.0, 0.0, 3.0, jnp.inf])
    np.testing.assert_array_equal(relu(x), nn.relu(x))
    np.testing.assert_array_equal(jax.vmap(jax.grad(relu))(x), jax.vmap(jax.grad(nn.relu))(x))
    assert jnp.isnan(relu(jnp.nan))


@pytest.mark.parametrize("train", [True, False])
def test_a_chain_in_a_loop_is_the_chain_written_out(monkeypatch, train):
    network = create("resnet20", 10)
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    variables = network.init(jax.random.key(1), images, train=False)

    def run(scan_from):
        monkeypatch.setattr(chain, "SCAN_FROM", scan_from)

        def loss(params):
            outputs, updated = network.apply(
                {**variables, "params": params}, images, train=train, mutable=["batch_stats"]
            )
            return jnp.sum(jnp.square(outputs.logits)), updated

        compute = jax.value_and_grad(loss, has_aux=True)
        loops = str(jax.make_jaxpr(compute)(variables["params"])).count("scan[")
        return loops, jax.jit(compute)(variables["params"])

    (loops, ours), (none, plain) = run(2), run(99)
    assert loops == 6 and none == 0  # there and back through three stages
    assert jax.tree.structure(ours) == jax.tree.structure(plain)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, plain)


def test_operations_in_a_loop_are_all_counted():
    image = jnp.zeros((1, 16, 16, 3))

    def flops(name):
        network = create(name, 10)
        shapes = jax.eval_shape(functools.partial(network.init, train=False), rng, image)
        cohort = types.SimpleNamespace(image_shape=image.shape[1:])
        return flops_per_image(cohort, network, shapes)

    rng = jax.random.key(0)
    published = 125.49 / 40.55  # multiply-adds of ResNet-56 and 20, He et al.
    np.testing.assert_allclose(flops("resnet56") / flops("resnet20"), published, rtol=0.03)


def test_a_function_compiled_with_its_loops_is_traced_anew_without():
    network = create("resnet56", 10)
    images = jnp.zeros((1, 8, 8, 3))
    shapes = jax.eval_shape(functools.partial(network.init, train=False), jax.random.key(0), images)
    run = jax.jit(functools.partial(network.apply, train=False))

    def loops():
        return str(jax.make_jaxpr(run)(shapes, images)).count("scan[")

    assert loops() == 3
    with chain.written_out():
        assert loops() == 0
    assert loops() == 3


def test_the_compiler_still_knows_the_options():
    assert training_options("cpu") is not None
    assert training_options("gpu") is None
