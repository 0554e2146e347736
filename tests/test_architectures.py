"""Forward passes of every family of networks against PyTorch, in float64.

The numbers come from experiments/reference/networks.py; every weight is drawn from its own name.
"""

import json
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax.networks import DenseNet, create

RESULTS = json.loads((pathlib.Path(__file__).parent / "reference" / "networks.json").read_text())


SMALLER = {  # than those that have a name
    "densenet-13-12": DenseNet(10, depth=13),
    "densenet-bc-22-12": DenseNet(10, depth=22, bottleneck=True),
}


def draw(name, shape):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    kind = name.rsplit("/", 1)[-1]
    if kind == "kernel":
        return rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
    if kind == "var":
        return rng.uniform(0.5, 1.5, shape)
    return (kind == "scale") + 0.1 * rng.normal(size=shape)


@pytest.mark.parametrize("name", RESULTS)
def test_forward_pass_equals_pytorch(name, double):
    network = SMALLER.get(name) or create(name, classes=10)
    images = jnp.asarray(draw("images/kernel", (16, 16, 3, 2)).transpose(3, 0, 1, 2))
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), images, train=False))

    def fill(path, leaf):
        _, *own = (key.key for key in path)
        return jnp.asarray(draw("/".join(own), leaf.shape))

    variables = jax.tree_util.tree_map_with_path(fill, shapes)
    outputs = jax.jit(lambda v: network.apply(v, images, train=False))(variables)
    np.testing.assert_allclose(outputs.logits, RESULTS[name]["logits"], rtol=1e-9, atol=1e-9)
    assert len(outputs.stages) == len(RESULTS[name]["maps"])
    for ours, theirs in zip(outputs.stages, RESULTS[name]["maps"], strict=True):
        np.testing.assert_allclose(np.mean(ours, -1)[0], theirs, rtol=1e-9, atol=1e-9)
