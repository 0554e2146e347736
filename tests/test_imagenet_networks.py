"""ResNets for large images: published sizes, and PyTorch's numbers.

The numbers come from experiments/reference/imagenet_networks.py.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax.errors import SettingError
from afd_jax.networks import create
from afd_jax.networks.imagenet_resnet import ImageNetResNet
from tests.test_architectures import draw
from tests.test_networks import parameters

FILE = pathlib.Path(__file__).parent / "reference" / "imagenet_networks.json"
RESULTS = json.loads(FILE.read_text())
PUBLISHED = {
    "imagenet_resnet18": (11_689_512, 512),
    "imagenet_resnet34": (21_797_672, 512),
    "imagenet_resnet50": (25_557_032, 2048),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_maps_are_the_published(name):
    count, channels = PUBLISHED[name]
    network = create(name, 1000)
    assert parameters(network, (1, 224, 224, 3)) == count
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    outputs, _ = jax.eval_shape(
        lambda x: network.init_with_output(jax.random.key(0), x, train=False), images
    )
    assert outputs.logits.shape == (2, 1000)
    assert outputs.features.shape == (2, 7, 7, channels)
    assert [stage.shape[1:] for stage in outputs.stages] == [
        (56 // 2**i, 56 // 2**i, channels // 8 * 2**i) for i in range(4)
    ]


@pytest.mark.parametrize("name", PUBLISHED)
def test_forward_pass_equals_pytorch(name, double):
    network = create(name, classes=10)
    images = jnp.asarray(draw("images/kernel", (32, 32, 3, 2)).transpose(3, 0, 1, 2))
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), images, train=False))

    def fill(path, leaf):
        _, *own = (key.key for key in path)
        return jnp.asarray(draw("/".join(own), leaf.shape))

    variables = jax.tree_util.tree_map_with_path(fill, shapes)
    outputs = jax.jit(lambda v: network.apply(v, images, train=False))(variables)
    np.testing.assert_allclose(outputs.logits, RESULTS[name]["logits"], rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(outputs.stages, RESULTS[name]["maps"], strict=True):
        np.testing.assert_allclose(np.mean(ours, -1)[0], theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PUBLISHED)
def test_batchnorm_is_synchronised(name):
    network = create(name, 10).clone(axis_name="data")
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images)

    def train(variables):
        return network.apply(variables, images, train=True, mutable="batch_stats")[1]

    jaxpr = str(jax.make_jaxpr(train, axis_env=[("data", 2)])(variables))
    assert jaxpr.count("psum") >= len(jax.tree.leaves(variables["batch_stats"])) // 2


@pytest.mark.parametrize(
    ("network", "size", "words"),
    [
        (ImageNetResNet(10, depth=20), 32, r"depth = 20: must be one of \[18, 34, 50\]"),
        (ImageNetResNet(10, depth=18), 31, "ImageNetResNet needs at least 32x32 pixels"),
    ],
)
def test_what_cannot_work_is_named(network, size, words):
    with pytest.raises(SettingError, match=words):
        parameters(network, (1, size, size, 3))
