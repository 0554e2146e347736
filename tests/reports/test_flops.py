"""Operations counted from traced programs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from afd_jax import speedups
from afd_jax.networks import chain, create
from afd_jax.networks.functional import functional
from afd_jax.reports.flops import count_flops


def flops(name, shape=(32, 32, 3)):
    network = functional(create(name, 10))
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    own = jax.eval_shape(network.init, jax.random.key(0), image)

    def forward(own, image):
        return network.apply(own, image, train=False)[0].logits

    return count_flops(forward, own, image), forward, own, image


def test_resnet8_equals_a_count_by_hand():
    def conv(before, after, side, kernel=3, stride=1):
        """Of a dimension each output sees `kernel` pixels, but for padding at the borders."""
        seen = side * kernel - 2 if kernel == 3 and stride == 1 else side * kernel
        seen -= kernel == 3 and stride == 2  # on one side only
        return 2 * before * after * seen**2

    count = conv(3, 16, 32) + 2 * conv(16, 16, 32)
    count += conv(16, 32, 16, stride=2) + conv(32, 32, 16) + conv(16, 32, 16, kernel=1)
    count += conv(32, 64, 8, stride=2) + conv(64, 64, 8) + conv(32, 64, 8, kernel=1)
    assert flops("resnet8")[0] == count + 2 * 64 * 10


def test_the_compiler_counts_the_same_and_what_is_done_element_by_element():
    count, forward, own, image = flops("resnet8")
    theirs = jax.jit(forward).lower(own, image).cost_analysis()["flops"]
    assert count < theirs < 1.03 * count


def test_operations_in_loops_are_all_counted(monkeypatch):
    looped = flops("resnet110", (8, 8, 3))[0]
    monkeypatch.setattr(chain, "SCAN_FROM", 99)
    assert looped == flops("resnet110", (8, 8, 3))[0]


@pytest.mark.parametrize(("name", "published"), [("resnet20", 40.55), ("resnet56", 125.49)])
def test_published_figures_count_padding_too(name, published):
    """Multiply-adds in millions."""
    assert 0.9 < flops(name)[0] / (2e6 * published) < 1


def test_forms_for_cpus_are_not_counted():
    count = flops("resnet8")[0]
    with speedups.forms("cpu"):
        assert flops("resnet8")[0] == count


@pytest.mark.parametrize(
    ("size", "kernel", "strides", "pads", "spread", "dilation", "groups"),
    [
        ((7, 6), 3, (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 1),
        ((7, 6), 3, (2, 1), ((2, 0), (0, 3)), (1, 1), (1, 1), 1),
        ((7, 6), 2, (1, 2), ((1, 1), (0, 0)), (2, 3), (1, 1), 1),
        ((7, 6), 3, (1, 1), ((2, 2), (0, 0)), (1, 2), (2, 1), 2),
        ((7, 6), 1, (2, 2), ((0, 0), (-1, 0)), (1, 1), (1, 1), 4),
    ],
)
def test_each_product_with_a_pixel_counts_once(
    size, kernel, strides, pads, spread, dilation, groups
):
    """An image of ones convolved with ones adds up its products."""
    convolve = functools.partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding=pads,
        lhs_dilation=spread,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    images, weights = jnp.ones((2, *size, 4)), jnp.ones((kernel, kernel, 4 // groups, 8))
    assert count_flops(convolve, images, weights) == 2 * np.sum(convolve(images, weights))


SQUARE = jnp.ones((4, 4))
ONE = 2.0 * 4**3  # of a product of such matrices


@jax.custom_vjp
def own_gradient(x):
    return x @ x


own_gradient.defvjp(lambda x: (own_gradient(x), x), lambda x, g: (g @ x @ x,))


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (jnp.matmul, None),
        (lambda x: x @ x, 1),
        (jax.jit(lambda x: x @ x + 1), 1),
        (jax.vmap(lambda row: row @ SQUARE), 1),
        (jax.checkpoint(lambda x: x @ x), 1),
        (own_gradient, 1),
        (jax.grad(lambda x: own_gradient(x).sum()), 3),
        (jax.grad(lambda x: jax.checkpoint(lambda y: jnp.sin(y @ y))(x).sum()), 4),
        (lambda x: lax.scan(lambda c, _: (c @ c, None), x, None, length=5)[0], 5),
        (lambda x: lax.fori_loop(0, 3, lambda _, c: c @ c, x), 3),
        (lambda x: lax.cond(x[0, 0] > 0, lambda y: y @ y @ y, lambda y: y @ y, x), 2),
        (lambda x: lax.while_loop(lambda c: c[0, 0] < 9, lambda c: c @ c, x), 1),
    ],
)
def test_through_what_wraps_programs(function, products):
    if products is None:
        assert count_flops(function, jnp.ones((2, 3)), jnp.ones((3, 5))) == 2 * 2 * 3 * 5
    else:
        assert count_flops(function, SQUARE) == products * ONE
