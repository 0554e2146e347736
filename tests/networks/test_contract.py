"""What a network must return."""

import functools

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from afd_jax.errors import SettingError
from afd_jax.networks import CifarResNet, MobileNetV2, create
from afd_jax.networks.contract import check_networks
from afd_jax.networks.functional import functional
from tests import tiny
from tests.networks.modules import InNNX


def check(*modules, shape=(8, 8, 2), classes=5):
    names = [f"net{i}" for i in range(len(modules))]
    networks = [functional(m, f"networks[{i}]") for i, m in enumerate(modules)]
    return check_networks("networks", names, networks, shape, classes)


class Flat(InNNX):
    def __call__(self, images):
        return super().__call__(images).logits


def test_shapes_are_returned_for_linen_and_nnx():
    linen, nnx = check(tiny.Tiny(5), functools.partial(InNNX, classes=5))
    assert linen.logits.shape == nnx.logits.shape == (2, 5)
    assert linen.features.shape == nnx.features.shape == (2, 4, 4, 4)
    assert isinstance(nnx.logits, jax.ShapeDtypeStruct)


def test_equal_networks_are_traced_once():
    traced = []

    class Counted(tiny.Tiny):
        @nn.compact
        def __call__(self, images, *, train):
            traced.append(train)
            return super().__call__(images, train=train)

    check(Counted(5), Counted(5))
    assert traced == [False, False, True]  # drawn, in evaluation, in training


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        (
            (tiny.Tiny(5), tiny.LogitsOnly(5)),
            r"networks\[1\] = 'net1': must return Outputs\(logits, features\), returns .*=False",
        ),
        ((functools.partial(Flat, classes=5),), r"networks\[0\] = 'net0': must return Outputs"),
        (
            (tiny.Tiny(5), tiny.FlatFeatures(5)),
            r"feature map \[batch, height, width, channels\].*returns \[batch, 2\]",
        ),
        ((tiny.Two(5),), r"networks\[0\] = 'net0': .*returns several"),
        (
            (tiny.Tiny(7), tiny.Tiny(5)),
            r"networks\[0\].*logits of shape \[batch, 5\], returns \[batch, 7\]",
        ),
        ((functools.partial(InNNX, channels=3),), r"networks\[0\] = 'net0': cannot take images of"),
    ],
)
def test_what_cannot_work_is_named_before_compiling(modules, words):
    with pytest.raises(SettingError, match=words):
        check(*modules)


class Sowing(tiny.Tiny):
    """Keeps one more number at every step."""

    @nn.compact
    def __call__(self, images, *, train):
        outputs = super().__call__(images, train=train)
        self.sow("metrics", "mean", jnp.mean(outputs.features))
        return outputs


class PooledStages(tiny.Tiny):
    @nn.compact
    def __call__(self, images, *, train):
        outputs = super().__call__(images, train=train)
        return outputs.replace(stages=(jnp.mean(outputs.features, (1, 2)),))


class OddPreactivations(tiny.Tiny):
    @nn.compact
    def __call__(self, images, *, train):
        outputs = super().__call__(images, train=train)
        maps = (outputs.features,)
        return outputs.replace(stages=maps * 2, preactivations=maps)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (Sowing, "its collection 'metrics' changes its structure or its shapes in training"),
        (PooledStages, r"must return stages as maps .*, returns one of \[batch, 4\]"),
        (OddPreactivations, "as many preactivations as stages, returns 1 and 2"),
    ],
)
def test_what_training_or_hints_would_break_at_is_named(network, words):
    with pytest.raises(SettingError, match=words):
        check(network(5))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: create("resnet8", 0), "classes = 0: must be a whole number"),
        (lambda: create(["resnet8"], 10), r"networks = \['resnet8'\]: did you mean 'resnet8'"),
        (lambda: check(CifarResNet(5, bottleneck=0)), "bottleneck = 0: must be a whole number"),
        (lambda: check(MobileNetV2(5, width=0.05)), r"width = 0\.05: must be a number"),
    ],
)
def test_fields_that_cannot_work_are_named(make, words):
    with pytest.raises(SettingError, match=words):
        make()


def test_small_images_are_named():
    with pytest.raises(SettingError, match=r"networks\[0\] \(net0\): image size = \(3, 9\).*4x4"):
        check(create("resnet8", 5), shape=(3, 9, 1))
