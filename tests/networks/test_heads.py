"""Discriminators, transfer layers, and heads with their variables."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from afd_jax.errors import SettingError
from afd_jax.networks.heads import BoundHead, Discriminator, Transfer


def test_transfer_resize_equals_pytorch():
    """Bilinear with antialias; numbers from experiments/reference/losses.py."""
    file = pathlib.Path(__file__).parents[1] / "reference" / "losses.json"
    reference = {k: np.array(v) for k, v in json.loads(file.read_text())["resize"].items()}
    maps = jnp.asarray(reference["maps"], jnp.float32).transpose(1, 2, 0)[None]
    module = Transfer((4, 3, 2))
    variables = module.init(jax.random.key(0), maps, train=False)
    identity = {"conv": {"kernel": jnp.eye(2)[None, None]}, "norm": variables["params"]["norm"]}
    ours = module.apply({**variables, "params": identity}, maps, train=False)[0]
    theirs = np.maximum(reference["resized"], 0).transpose(1, 2, 0) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_discriminator_gives_one_probability_per_image():
    maps = jax.random.normal(jax.random.key(1), (3, 8, 8, 5))
    scores, variables = Discriminator().init_with_output(jax.random.key(0), maps)
    assert scores.shape == (3,) and np.all((scores > 0) & (scores < 1))
    raw = Discriminator(sigmoid=False).apply(variables, maps, mutable=["batch_stats"])[0]
    np.testing.assert_allclose(scores, jax.nn.sigmoid(raw), rtol=1e-6)


def test_a_kernel_that_does_not_fit_is_named():
    module = Discriminator(widths=(4,) * 4, kernel=4, stride=1)
    with pytest.raises(SettingError, match=r"discriminator.kernel = 4: the kernel does not fit"):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((2, 4, 4, 3)))


class NormInNNX(nnx.Module):
    """A head in NNX: one array in, one out."""

    def __init__(self, *, rngs):
        self.conv = nnx.Conv(3, 4, (1, 1), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)

    def __call__(self, maps):
        return nnx.relu(self.norm(self.conv(maps)))


@pytest.mark.parametrize("module", [Transfer((2, 2, 4)), NormInNNX], ids=["linen", "nnx"])
def test_a_head_keeps_its_statistics_for_the_length_of_a_trace(module):
    maps = jax.random.normal(jax.random.key(1), (3, 2, 2, 3)) + 1
    new = BoundHead(module, rng=jax.random.key(0))
    first = new(maps)
    begun = new.variables
    np.testing.assert_array_equal(new(maps), first)  # drawn once, and in evaluation
    jax.tree.map(np.testing.assert_array_equal, new.variables, begun)
    assert not np.any(begun["batch_stats"]["norm"]["mean"])

    head = BoundHead(module, begun)
    outputs = head(maps)
    assert np.any(outputs != first)
    once = head.variables["batch_stats"]["norm"]["mean"]
    head(maps)
    twice = head.variables["batch_stats"]["norm"]["mean"]
    np.testing.assert_allclose(twice, 1.9 * once, rtol=1e-5)
    assert not np.any(begun["batch_stats"]["norm"]["mean"])  # nothing outside sees it
    jax.tree.map(np.testing.assert_array_equal, head.variables["params"], begun["params"])


def test_both_kinds_of_heads_are_the_same_function():
    maps = jax.random.normal(jax.random.key(1), (3, 2, 2, 3))
    variables = BoundHead(NormInNNX, rng=jax.random.key(0))
    variables(maps)
    ours, theirs = (
        BoundHead(module, variables.variables) for module in (NormInNNX, Transfer((2, 2, 4)))
    )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    close(ours(maps), theirs(maps))
    jax.tree.map(close, ours.variables, theirs.variables)


def test_what_is_no_head_is_named():
    with pytest.raises(SettingError, match="heads = 3: must be a Linen module"):
        BoundHead(3)
