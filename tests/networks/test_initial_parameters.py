"""Initial parameters as the public codes have them, in distribution."""

import jax
import numpy as np
import pytest

from afd_jax.networks import create
from afd_jax.networks.functional import draw, functional
from afd_jax.networks.heads import NonLinearTransformation

SHAPE = (32, 32, 3)


def drawn(name, *wanted):
    """Leaves by name; what is not asked for is not computed."""
    network = functional(create(name, 100))

    @jax.jit
    def some(key):
        tree = draw(network, SHAPE, 0, key)["params"]
        named = {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf
            for path, leaf in jax.tree.leaves_with_path(tree)
        }
        return [named[name] for name in wanted]

    return [np.asarray(leaf) for leaf in some(jax.random.key(0))]


def is_normal(x, deviation):
    np.testing.assert_allclose(np.std(x), deviation, rtol=0.04)
    assert 2.5 < np.max(np.abs(x)) / deviation  # further out than a uniform one


def is_uniform(x, bound):
    assert 0.9 * bound < np.max(np.abs(x)) <= bound
    np.testing.assert_allclose(np.std(x), bound / np.sqrt(3), rtol=0.1)


HE = {  # normal, deviation sqrt(2 / (kernel² * outputs)): a kernel, and whether the bias is zero
    "resnet20": ("stage3_block2/conv1/kernel", "default"),
    "okddip_resnet110": ("stage3_block1/conv2/conv/kernel", "default"),
    "cifar_resnet18": ("stage3_block1/conv1/kernel", "default"),
    "imagenet_resnet18": ("stage3_block1/conv1/kernel", "default"),
    "wrn-16-2": ("stage3_block1/conv1/kernel", "zero"),
    "densenet-40-12": ("stage3_layer9/conv/kernel", "zero"),
    "resnext29-2x64d": ("stage2_block1/conv1/conv/kernel", "zero"),
    "vgg8": ("stage3_layer1/conv/kernel", "narrow"),
    "okddip_vgg16": ("stage3_layer1/conv/kernel", "narrow"),
    "mobilenet_v2": ("stage6_block3/depthwise/conv/kernel", "narrow"),
}


@pytest.mark.parametrize("name", HE)
def test_he_fan_out(name):
    layer, last = HE[name]
    linear = "classifier/linear"
    kernel, matrix, bias = drawn(name, layer, f"{linear}/kernel", f"{linear}/bias")
    height, width, _, outputs = kernel.shape
    is_normal(kernel, np.sqrt(2 / (height * width * outputs)))
    if last == "narrow":
        is_normal(matrix, 0.01)
    else:
        is_uniform(matrix, matrix.shape[0] ** -0.5)
    if last == "default":
        is_uniform(bias, matrix.shape[0] ** -0.5)
    else:
        assert not np.any(bias)


PYTORCH = {  # uniform in ±1/sqrt(kernel² * inputs)
    "preact_resnet18": ("stem/conv", "stage3_block1/conv1", "stage3_block1/shortcut"),
    "shufflenet_v1": ("stage2_block2/conv1/conv", "stage2_block2/conv2/conv"),
    "shufflenet_v2": ("stage2_block1/pass1/conv", "stage3_block1/conv1/conv", "last/conv"),
}


@pytest.mark.parametrize("name", PYTORCH)
def test_what_pytorch_gives_unasked(name):
    leaves = [f"{layer}/kernel" for layer in PYTORCH[name]]
    *kernels, matrix, bias = drawn(
        name, *leaves, "classifier/linear/kernel", "classifier/linear/bias"
    )
    for kernel in kernels:
        is_uniform(kernel, np.prod(kernel.shape[:3]) ** -0.5)
    is_uniform(matrix, matrix.shape[0] ** -0.5)
    is_uniform(bias, matrix.shape[0] ** -0.5)


def test_the_densenet_of_okddip_begins_by_fan_in():
    leaves = ("stage3_layer6/bottleneck/kernel", "transition1/kernel", "classifier/linear/bias")
    *kernels, bias = drawn("okddip_densenet-40-12", *leaves)
    for kernel in kernels:
        is_normal(kernel, np.sqrt(2 / np.prod(kernel.shape[:3])))
    assert not np.any(bias)


def test_biases_before_batchnorm_and_of_hidden_layers_begin_at_zero():
    leaves = ("stage1_layer1/conv/bias", "classifier/linear1/kernel", "classifier/linear2/bias")
    first, matrix, bias = drawn("okddip_vgg16", *leaves)
    assert not np.any(first) and not np.any(bias)
    is_normal(matrix, 0.01)


@pytest.mark.parametrize("transposed", [False, True])
def test_translator_and_paraphraser_begin_as_pytorchs_layers(transposed):
    module = functional(NonLinearTransformation((32, 128), transposed=transposed))
    params = module.init(jax.random.key(0), np.zeros((1, 4, 4, 64), np.float32))["params"]
    for name, before, after in (("conv1", 64, 32), ("conv2", 32, 128)):
        bound = (9 * (after if transposed else before)) ** -0.5
        is_uniform(params[name]["kernel"], bound)
        is_uniform(np.concatenate([params[name]["bias"], [-bound, bound] * 3]), bound)
        assert 0.5 * bound < np.max(np.abs(params[name]["bias"]))
