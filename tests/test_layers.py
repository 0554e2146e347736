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
from afd_jax.networks.as_written import as_written
from afd_jax.networks.convolution import conv_general_dilated
from afd_jax.networks.layers import relu

LAYOUT = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "pads", "channels", "features"),
    [
        ((5, 6), 3, 1, ((1, 1), (1, 1)), 30, 5),  # two pixels together, forwards
        ((5, 8), 3, 1, ((1, 1), (1, 1)), 3, 20),  # two, and four backwards
        ((5, 7), 3, 1, ((1, 1), (1, 1)), 3, 5),  # a width that is odd
        ((9, 8), 3, 2, ((1, 1), (1, 1)), 3, 5),
        ((9, 8), 1, 2, ((0, 0), (0, 0)), 3, 5),
        ((11, 10), 5, 3, ((2, 1), (0, 2)), 3, 5),
        ((7, 9), 4, 2, ((0, 0), (1, 0)), 3, 5),
        ((4, 4), 3, 2, ((1, 1), (1, 1)), 30, 30),  # a gradient smaller than the window
    ],
)
def test_a_convolution_and_its_gradients_are_those_of_jax(
    size, kernel, stride, pads, channels, features
):
    images = jax.random.normal(jax.random.key(0), (2, *size, channels))
    weights = jax.random.normal(jax.random.key(1), (kernel, kernel, channels, features))

    def run(convolve):
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
            return jnp.sum(jnp.sin(out)), out

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(images, weights)

    ours, theirs = run(conv_general_dilated), run(lax.conv_general_dilated)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, theirs)


def windows(*shape):
    """The windows of a convolution's program, forwards and backwards."""
    images, weights = jnp.zeros((2, 4, 4, shape[0])), jnp.zeros((3, 3, *shape))
    pads = ((1, 1), (1, 1))

    def loss(images, weights):
        return conv_general_dilated(images, weights, (2, 2), pads, dimension_numbers=LAYOUT).sum()

    program = jax.jit(jax.grad(loss, (0, 1))).lower(images, weights).compile().as_text()
    return [line for line in program.splitlines() if "convolution(" in line]


def test_the_compiler_does_not_exchange_operands():
    assert windows(30, 30) and not any("rhs_reversal" in line for line in windows(30, 30))


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


def test_operations_in_loops_are_all_counted_and_those_for_speed_are_not():
    image = jnp.zeros((1, 32, 32, 3))

    def flops(name):
        network = create(name, 10)
        shapes = jax.eval_shape(functools.partial(network.init, train=False), rng, image)
        cohort = types.SimpleNamespace(image_shape=image.shape[1:])
        return flops_per_image(cohort, network, shapes)

    rng = jax.random.key(0)
    # Published multiply-adds, in millions; the compiler leaves out those with padding.
    for name, published in (("resnet20", 40.55), ("resnet56", 125.49)):
        assert 0.92 < flops(name) / (2e6 * published) < 1, name


def test_a_function_compiled_with_its_loops_is_traced_anew_without():
    network = create("resnet56", 10)
    images = jnp.zeros((1, 8, 8, 3))
    shapes = jax.eval_shape(functools.partial(network.init, train=False), jax.random.key(0), images)
    run = jax.jit(functools.partial(network.apply, train=False))

    def loops():
        return str(jax.make_jaxpr(run)(shapes, images)).count("scan[")

    assert loops() == 3
    with as_written():
        assert loops() == 0
    assert loops() == 3


def test_the_compiler_still_knows_the_options():
    assert training_options("cpu") is not None
    assert training_options("gpu") is None
