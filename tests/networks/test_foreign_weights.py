"""Weights of public PyTorch networks, against experiments/reference/foreign_weights.py."""

import functools
import json
import pathlib
import zlib

import jax
import numpy as np
import pytest

from afd_jax.networks import VGG, create
from afd_jax.networks.functional import functional, run
from afd_jax.networks.pytorch_names import from_pytorch
from tests.tiny import Tiny

FILE = pathlib.Path(__file__).parents[1] / "reference" / "foreign_weights.npz"
REFERENCE = json.loads(np.load(FILE)["index"].tobytes())


def draw(name, shape):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if len(shape) > 1:
        return rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
    return name.endswith(".weight") + 0.1 * rng.normal(size=shape)


def state_dict(name):
    tensors = {key: draw(key, shape) for key, shape in REFERENCE[name]["shapes"].items()}
    norms = [key.removesuffix(".running_var") for key in tensors if key.endswith(".running_var")]
    return tensors | {f"{norm}.num_batches_tracked": np.array(5) for norm in norms}


def converted(name, tensors):
    side = REFERENCE[name]["side"]
    return from_pytorch(tensors, create(name, 10), (side, side, 3))


@pytest.mark.parametrize("name", REFERENCE)
def test_logits_equal_pytorch(name, double):
    side = REFERENCE[name]["side"]
    images = draw("images", (2, 3, side, side)).transpose(0, 2, 3, 1)
    network = functional(create(name, 10))
    outputs, _ = run(network, converted(name, state_dict(name)), images, {}, train=False)
    np.testing.assert_allclose(outputs.logits, REFERENCE[name]["logits"], rtol=1e-9, atol=1e-9)


def refused(tensors, name="resnet8"):
    with pytest.raises(ValueError) as caught:
        converted(name, tensors)
    return str(caught.value)


def test_every_tensor_is_accounted_for():
    good = state_dict("resnet8")
    assert refused(good | {"head.weight": np.zeros(3)}) == "no use for head.weight"
    # Counts are ignored beside the BatchNorm that they belong to, and nowhere else.
    count = {"fc.num_batches_tracked": np.array(1)}
    assert refused(good | count) == "no use for fc.num_batches_tracked"
    less = {key: x for key, x in good.items() if key != "bn1.running_var"}
    assert refused(less) == "lacks bn1.running_var"
    renamed = {key.replace("fc", "head"): x for key, x in good.items()}
    assert refused(renamed) == "lacks fc.bias, fc.weight; no use for head.weight, head.bias"
    words = refused(state_dict("wrn-16-2"))  # many: the first few are named
    assert words.startswith("lacks ") and " more; no use for " in words


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (np.zeros((100, 64)), "fc.weight has shape (100, 64), the network needs (10, 64)"),
        (np.zeros((64, 10)), "fc.weight has shape (64, 10), the network needs (10, 64)"),
        (np.zeros((10, 64), int), "fc.weight holds int64, not floating-point numbers"),
        (np.full((10, 64), np.nan), "fc.weight holds numbers that are not finite"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(tensor, words):
    assert refused(state_dict("resnet8") | {"fc.weight": tensor}) == words


def test_a_vgg_of_other_halvings_is_refused():
    """RepDistiller's forward pass pools 64x64 images once more, which no tensor tells."""
    tensors = state_dict("vgg8")
    with pytest.raises(ValueError, match=r"a fourth time; .* VGG\(10, depth=8, halvings=4\)"):
        from_pytorch(tensors, create("vgg8", 10), (64, 64, 3))
    assert from_pytorch(tensors, VGG(10, depth=8, halvings=4), (64, 64, 3))


def test_blocks_in_a_loop_are_wanted_one_by_one():
    tensors = state_dict("resnet56")
    del tensors["layer2.5.conv1.weight"]
    tensors["layer2.9.conv1.weight"] = np.zeros((32, 32, 3, 3))
    words = "lacks layer2.5.conv1.weight; no use for layer2.9.conv1.weight"
    assert refused(tensors, "resnet56") == words


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_prefixes_are_left_out():
    good = state_dict("resnet8")
    for prefix in ("module.", "_orig_mod.", "module._orig_mod."):
        own = {f"{prefix}{key}": x for key, x in good.items()}
        same(converted("resnet8", own), converted("resnet8", good))


def test_half_precision_becomes_single():
    import ml_dtypes

    for dtype in (np.float16, ml_dtypes.bfloat16):
        half = {key: x.astype(dtype) for key, x in state_dict("resnet8").items() if x.ndim}
        leaves = jax.tree.leaves(converted("resnet8", half))
        assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
        same(
            converted("resnet8", half),
            converted("resnet8", {key: x.astype(np.float32) for key, x in half.items()}),
        )


def test_names_may_differ_between_codes():
    good = state_dict("cifar_resnet18")
    swap = functools.partial(str.replace)
    other = {swap(swap(k, "shortcut", "downsample"), "linear", "fc"): x for k, x in good.items()}
    assert {*other} != {*good}
    same(converted("cifar_resnet18", other), converted("cifar_resnet18", good))


def test_a_network_without_known_names():
    with pytest.raises(ValueError, match="no PyTorch names are known for Tiny, only for CifarR"):
        from_pytorch({}, Tiny(10), (8, 8, 1))
    with pytest.raises(ValueError, match="no PyTorch name is known for the layer classifier/lin"):
        from_pytorch({}, create("okddip_vgg16", 10), (32, 32, 3))
