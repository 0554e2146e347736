"""Numbers of parameters, shapes of maps, names."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax.errors import SettingError
from afd_jax.networks import (
    NAMES,
    VGG,
    CifarResNet,
    DenseNet,
    MobileNetV2,
    PreActResNet,
    WideResNet,
    create,
)
from afd_jax.networks.functional import draw, functional
from afd_jax.networks.imagenet_resnet import ImageNetResNet
from afd_jax.networks.wide_resnet import WideBlock
from tests.networks.shapes import outputs, parameters, variables

# Published, or printed by the code that distillation papers share; for 100 classes if not said.
PUBLISHED = {
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn-16-2": 703_284,
    "wrn-40-1": 569_780,
    "wrn-40-2": 2_255_156,
    "wrn-28-10": 36_536_884,
    "vgg8": 3_965_028,
    "vgg13": 9_462_180,
    "mobilenet_v2": 812_836,
    "shufflenet_v1": 949_258,
    "shufflenet_v2": 1_355_528,
    "cifar_resnet50": 23_705_252,
    "okddip_resnet110": 1_170_868,
    "okddip_wrn-20-8": 6_871_220,
    "okddip_vgg16": 15_299_748,
    "okddip_densenet-40-12": 188_092,
    "densenet-40-12 of 10": 1_019_722,
    "densenet-bc-100-12 of 10": 769_162,
    "resnext29-8x64d of 10": 34_426_698,
    "preact_resnet18 of 10": 11_171_146
    + 2 * 64,  # and the stem's BatchNorm, which others leave out
}
LARGE = {  # of 224x224 images and 1000 classes: parameters, channels of the last map
    "imagenet_resnet18": (11_689_512, 512),
    "imagenet_resnet34": (21_797_672, 512),
    "imagenet_resnet50": (25_557_032, 2048),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_equal_the_published(name):
    name, _, classes = name.partition(" of ")
    count = PUBLISHED[f"{name} of 10" if classes else name]
    assert parameters(create(name, int(classes or 100))) == count


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnext29-16x64d", 68.1),
        ("vgg16", 14.7),
        ("preact_resnet34", 21.3),
        ("cifar_resnet18", 11.2),
        ("cifar_resnet34", 21.3),
    ],
)
def test_parameters_agree_with_rounded_figures(name, millions):
    assert abs(parameters(create(name, 10)) / 1e6 - millions) < 0.1


def of_conv(before, after, kernel, bias=False):
    """With its BatchNorm."""
    return before * after * kernel**2 + (3 if bias else 2) * after


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56, 110])
def test_parameters_equal_a_count_by_layers(depth):
    total, before = of_conv(3, 16, 3), 16
    for width in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            total += of_conv(before, width, 3) + of_conv(width, width, 3)
            total += of_conv(before, width, 1) if before != width else 0
            before = width
    assert parameters(create(f"resnet{depth}", 100)) == total + 64 * 100 + 100


@pytest.mark.parametrize(
    ("name", "layers"), [("vgg11", (1, 1, 2, 2, 2)), ("vgg19", (2, 2, 4, 4, 4))]
)
def test_parameters_of_a_vgg_equal_a_count_by_layers(name, layers):
    total, before = 512 * 100 + 100, 3
    for count, width in zip(layers, (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            total += of_conv(before, width, 3, bias=True)
            before = width
    assert parameters(create(name, 100)) == total


MAPS = {  # of 32x32 images: the map before pooling, and each stage's own: side, channels
    "resnet8x4": ((8, 8, 256), ((32, 64), (16, 128), (8, 256))),
    "wrn-16-2": ((8, 8, 128), ((32, 32), (16, 64), (8, 128))),
    "preact_resnet18": ((4, 4, 512), ((32, 64), (16, 128), (8, 256), (4, 512))),
    "preact_resnet50": ((4, 4, 2048), ((32, 256), (16, 512), (8, 1024), (4, 2048))),
    "cifar_resnet34": ((4, 4, 512), ((32, 64), (16, 128), (8, 256), (4, 512))),
    "vgg8": ((4, 4, 512), ((32, 64), (16, 128), (8, 256), (4, 512), (4, 512))),
    "densenet-40-12": ((8, 8, 448), ((32, 160), (16, 304), (8, 448))),
    "resnext29-2x64d": ((8, 8, 1024), ((32, 256), (16, 512), (8, 1024))),
    "mobilenet_v2": ((2, 2, 1280), ((16, 12), (8, 16), (4, 48), (2, 160))),
    "shufflenet_v1": ((4, 4, 960), ((16, 240), (8, 480), (4, 960))),
    "shufflenet_v2": ((4, 4, 1024), ((16, 116), (8, 232), (4, 464))),
    "okddip_resnet110": ((8, 8, 256), ((32, 64), (16, 128), (8, 256))),
    "okddip_wrn-20-8": ((8, 8, 256), ((32, 64), (16, 128), (8, 256))),
    "okddip_vgg16": ((1, 1, 512), ((32, 64), (16, 128), (8, 256), (4, 512), (2, 512))),
    "okddip_densenet-40-12": ((8, 8, 132), ((32, 96), (16, 120), (8, 132))),
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_have_the_stated_shape(name):
    answer = outputs(create(name, 10))
    features, stages = MAPS[name]
    assert answer.logits.shape == (2, 10)
    assert answer.features.shape == (2, *features)
    assert [stage.shape for stage in answer.stages] == [(2, s, s, c) for s, c in stages]


@pytest.mark.parametrize("name", LARGE)
def test_parameters_and_maps_of_large_images_are_the_published(name):
    count, channels = LARGE[name]
    network, shape = create(name, 1000), (224, 224, 3)
    assert parameters(network, shape) == count
    answer = outputs(network, shape)
    assert answer.logits.shape == (2, 1000)
    assert answer.features.shape == (2, 7, 7, channels)
    assert [stage.shape[1:] for stage in answer.stages] == [
        (56 // 2**i, 56 // 2**i, channels // 8 * 2**i) for i in range(4)
    ]


def test_every_name_can_be_built():
    made = [functional(create(name, 10)) for name in NAMES]
    assert len(set(made)) == len({repr(network) for network in made}) == len(NAMES) > 60


@pytest.mark.parametrize("name", [*MAPS, *LARGE])
def test_batchnorm_of_every_network_is_synchronised(name):
    """One sum over the device axis for each BatchNorm: none is left without it."""
    network = functional(create(name, 10)).with_axis("data")
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    shapes = variables(network.module)
    norms = jax.tree.leaves(shapes["batch_stats"])

    def statistics(own, images):
        return network.apply(own, images, train=True)[1]

    traced = str(jax.make_jaxpr(statistics, axis_env=[("data", 2)])(shapes, images))
    assert traced.count("psum") >= len(norms) // 2


@pytest.mark.parametrize("name", MAPS)
def test_every_network_can_be_cut(name):
    """Lower and upper stages are the whole, with the same names."""
    network = create(name, 10)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), "float32")

    def shapes(method, x, **options):
        def init(x):
            return network.init_with_output(
                jax.random.key(0), x, train=False, method=method, **options
            )

        return jax.eval_shape(init, x)

    whole = variables(network)["params"]
    for stages in range(1, network.stage_count):
        lower, below = shapes("lower", images, stages=stages)
        upper, above = shapes("upper", lower, stages=stages)
        assert {**below["params"], **above["params"]} == whole
        assert not below["params"].keys() & above["params"].keys()
        assert len(upper.stages) == network.stage_count - stages


FAMILIES = (
    CifarResNet(10, depth=8),
    PreActResNet(10, depth=18),
    WideResNet(10, depth=10, factor=1),
    VGG(10, depth=11),
    DenseNet(10, depth=10, growth=4, bottleneck=True),
    MobileNetV2(10),
)


@pytest.mark.parametrize("network", FAMILIES, ids=lambda network: type(network).__name__)
def test_a_network_can_be_entered_at_the_end_of_each_stage(network):
    """With its own map there, the logits are its own."""
    images = jax.random.uniform(jax.random.key(1), (2, 32, 32, 3))

    @jax.jit
    def both(images):
        whole, own = network.init_with_output(jax.random.key(0), images, train=False)
        run = functools.partial(network.apply, own, train=False, method="after")
        return whole, [run(x, stages=n) for n, x in enumerate(whole.stages, 1)]

    whole, entered = both(images)
    assert len(entered) == network.stage_count
    for stages, found in enumerate(entered, 1):
        np.testing.assert_allclose(found.logits, whole.logits, rtol=1e-5, atol=1e-6)
        assert len(found.stages) == network.stage_count - stages


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: create("resnet33", 10), "networks = 'resnet33': did you mean 'resnet32'"),
        (lambda: create("resnet9", 5), "did you mean 'resnet8'"),
        (lambda: create("tests.tiny:Nothing", 10), "could not import it.*Nothing"),
        (lambda: create("no_such_module:Net", 10), "could not import it.*no_such_module"),
        (lambda: create("tests.networks.shapes:parameters", 10), "could not build it from classes"),
        (lambda: parameters(ImageNetResNet(10, depth=20)), r"depth = 20: .* \[18, 34, 50\]"),
        (lambda: parameters(VGG(10, depth=12)), r"depth = 12: .* \[8, 11, 13, 16, 19\]"),
        (lambda: parameters(VGG(10, halvings=2)), "halvings = 2: must be 3, 4 or 5"),
        (lambda: parameters(CifarResNet(10, depth=21)), "depth = 21: .* 6n"),
        (lambda: parameters(CifarResNet(10, depth=32, bottleneck=1)), "depth = 32: .* 9n"),
        (
            lambda: parameters(ImageNetResNet(10), (31, 31, 3)),
            "ImageNetResNet needs at least 32x32 pixels",
        ),
        (
            lambda: parameters(create("okddip_vgg16", 10), (31, 31, 3)),
            "VGG needs at least 32x32 pixels",
        ),
    ],
)
def test_what_cannot_work_is_named(make, words):
    with pytest.raises(SettingError, match=words):
        make()


def test_a_wide_block_may_halve_the_map_alone():
    """As DCM asks of its auxiliary classifiers, where a stage keeps its width."""
    x, block = jnp.ones((2, 4, 4, 8)), WideBlock(8, stride=2)
    shape = jax.eval_shape(
        lambda: block.init_with_output(jax.random.key(0), x, train=True)[0]
    ).shape
    assert shape == (2, 2, 2, 8)


def test_small_images_are_enough_where_the_stem_keeps_them():
    network = functional(create("cifar_resnet18", 10))
    jax.eval_shape(lambda key: draw(network, (8, 8, 3), 0, key), jax.random.key(0))
