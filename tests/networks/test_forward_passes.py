"""Forward passes of every family of networks against PyTorch, in float64.

The numbers come from experiments/reference/networks.py and imagenet_networks.py; every weight is
drawn from its own name.
"""

import functools
import json
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax.networks import CifarResNet, DenseNet, create
from afd_jax.networks.functional import functional, run
from tests.networks.shapes import variables

FOLDER = pathlib.Path(__file__).parents[1] / "reference"
NETWORKS, LARGE, MORE = (
    json.loads((FOLDER / f"{name}.json").read_text())
    for name in ("networks", "imagenet_networks", "more_networks")
)
SMALLER = {  # than those that have a name
    "densenet-13-12": DenseNet(10, depth=13),
    "densenet-bc-22-12": DenseNet(10, depth=22, bottleneck=True),
    "okddip_resnet29": CifarResNet(10, depth=29, bottleneck=1),
}


def draw(name, shape):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    kind = name.rsplit("/", 1)[-1]
    if kind == "kernel":
        return rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
    if kind == "var":
        return rng.uniform(0.5, 1.5, shape)
    return (kind == "scale") + 0.1 * rng.normal(size=shape)


def fill(path, leaf):
    _, *own = (key.key for key in path)
    return draw("/".join(own), leaf.shape)


def answer(name, side):
    network = SMALLER.get(name) or create(name, classes=10)
    shapes = variables(network, (side, side, 3))
    images = jnp.asarray(draw("images/kernel", (side, side, 3, 2)).transpose(3, 0, 1, 2))
    own = jax.tree_util.tree_map_with_path(fill, shapes)
    return run(functional(network), own, images, {}, train=False)[0]


close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)


def check(outputs, theirs, last):
    """That logits and maps are theirs; `last` is what theirs has as its last map."""
    close(outputs.logits, theirs["logits"])
    ours = [*outputs.stages[:-1], last]
    for mine, other in zip(ours, theirs["maps"], strict=True):
        close(np.mean(mine, -1)[0], other)


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_pass_equals_pytorch(name, double):
    outputs = answer(name, 16)
    check(outputs, NETWORKS[name], outputs.features)
    if name in MORE:
        check(outputs, MORE[name], outputs.stages[-1])
    else:  # nothing stands between the last stage and the pooling
        close(outputs.stages[-1], outputs.features)


@pytest.mark.parametrize("name", [name for name in MORE if name not in NETWORKS])
def test_forward_pass_of_later_networks_equals_pytorch(name, double):
    outputs = answer(name, 32 if name == "okddip_vgg16" else 16)
    check(outputs, MORE[name], outputs.stages[-1])
    close(np.mean(outputs.features, -1)[0], MORE[name]["features"])


@pytest.mark.parametrize("name", LARGE)
def test_forward_pass_for_large_images_equals_pytorch(name, double):
    outputs = answer(name, 32)
    check(outputs, LARGE[name], outputs.features)


ACTIVATED = ("resnet8", "resnet56", "vgg8", "shufflenet_v1", "cifar_resnet18")


@pytest.mark.parametrize("name", [*ACTIVATED, "wrn-16-1", "mobilenet_v2"])
def test_maps_are_told_before_the_relu_of_a_stage(name):
    network, activated = functional(create(name, 5)), name in ACTIVATED
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))

    @jax.jit
    def maps(key):
        outputs, _ = network.apply(network.init(key, images), images, train=True)
        return outputs.stages, outputs.preactivations

    ends, before = maps(jax.random.key(1))
    assert len(ends) == len(before)
    for end, own in zip(ends, before, strict=True):
        assert (np.min(own) < 0 <= np.min(end)) if activated else np.min(end) < 0
        np.testing.assert_array_equal(end, np.maximum(own, 0) if activated else own)
