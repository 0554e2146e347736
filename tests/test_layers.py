"""Layers in the form that is quick on the CPU give what the plain form gives."""

import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from afd_jax.cpu.compiler import training_options
from afd_jax.reports.cost import flops_per_image
from afd_jax.networks import chain, create
from afd_jax.networks.as_written import as_written
from afd_jax.cpu.convolution import conv_general_dilated
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
    found = windows(30, 30)
    assert found and not any("rhs_reversal" in line for line in found)


def test_relu_is_flax_relu():
    x = jnp.array([-jnp.inf, -2.0, -0.0, 0.0, 3.0, jnp.inf])
    np.testing.assert_array_equal(relu(x), nn.relu(x))
    np.testing.assert_array_equal(jax.vmap(jax.grad(relu))(x), jax.vmap(jax.grad(nn.relu))(x))
    assert jnp.isnan(relu(jnp.nan))


def stacked(tree, blocks):
    """What a network keeps for a chain written out, as it keeps it for the chain in a loop."""
    new = {name: own for name, own in tree.items() if not re.search(r"_block[2-9]$", name)}
    for stage in (1, 2, 3):
        own = [tree[f"stage{stage}_block{n}"] for n in range(2, blocks + 1)]
        new[f"stage{stage}_block2_and_on"] = jax.tree.map(lambda *each: jnp.stack(each), *own)
    return new


@pytest.mark.parametrize("train", [True, False])
def test_a_chain_in_a_loop_is_the_chain_written_out(monkeypatch, train):
    network = create("resnet20", 10)
    images = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))

    def loss(variables):
        outputs, updated = network.apply(variables, images, train=train, mutable=["batch_stats"])
        return jnp.sum(jnp.square(outputs.logits)), updated.get("batch_stats", {})

    def run(scan_from, variables):
        monkeypatch.setattr(chain, "SCAN_FROM", scan_from)
        compute = jax.value_and_grad(loss, has_aux=True)
        loops = str(jax.make_jaxpr(compute)(variables)).count("scan[")
        (value, statistics), gradient = jax.jit(compute)(variables)
        return loops, value, statistics, gradient["params"]

    variables = network.init(jax.random.key(1), images, train=False)
    none, value, *plain = run(99, variables)
    plain = [stacked(tree, 3) for tree in plain]
    loops, ours, *trees = run(2, {name: stacked(own, 3) for name, own in variables.items()})
    assert loops == 6 and none == 0  # there and back through three stages
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(ours, value)
    assert jax.tree.structure(trees) == jax.tree.structure(plain)
    jax.tree.map(close, trees, plain)


def test_each_block_of_a_loop_starts_as_one_written_out():
    network, images = create("resnet56", 10), jnp.zeros((1, 4, 4, 3))
    params = jax.jit(functools.partial(network.init, train=False))(jax.random.key(0), images)[
        "params"
    ]
    kernels = params["stage2_block2_and_on"]["conv1"]["kernel"]
    assert kernels.shape == (8, 3, 3, 32, 32)
    np.testing.assert_allclose(np.std(kernels, axis=(1, 2, 3, 4)), (2 / (9 * 32)) ** 0.5, rtol=0.05)
    assert np.all(np.std(kernels, axis=0) > 0)


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
        return run.lower(shapes, images).as_text().count("stablehlo.while")

    assert loops() == 3
    with as_written():
        assert loops() == 0
    assert loops() == 3


def test_the_compiler_still_knows_the_options():
    assert training_options("cpu") is not None
    assert training_options("gpu") is None
