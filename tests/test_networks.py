import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax.engine.build import make_cohort
from afd_jax.errors import SettingError
from afd_jax.graph import Graph, cyclic_pairs
from afd_jax.networks.heads import Discriminator, Transfer
from afd_jax.methods import AFD
from afd_jax.networks import NAMES, create
from afd_jax.engine.synchronised import synchronised
from tests import small, tiny


def parameters(module, shape=(1, 32, 32, 3)):
    variables = jax.eval_shape(
        lambda: module.init(jax.random.key(0), jnp.zeros(shape), train=False)
    )
    return sum(x.size for x in jax.tree.leaves(variables["params"]))


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
    "densenet-40-12 of 10": 1_019_722,
    "densenet-bc-100-12 of 10": 769_162,
    "resnext29-8x64d of 10": 34_426_698,
    "preact_resnet18 of 10": 11_171_146
    + 2 * 64,  # and the stem's BatchNorm, which others leave out
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_equal_the_published(name):
    name, _, classes = name.partition(" of ")
    count = PUBLISHED[f"{name} of 10" if classes else name]
    assert parameters(create(name, int(classes or 100))) == count


@pytest.mark.parametrize(
    ("name", "millions"), [("resnext29-16x64d", 68.1), ("vgg16", 14.7), ("preact_resnet34", 21.3)]
)
def test_parameters_agree_with_rounded_figures(name, millions):
    assert abs(parameters(create(name, 10)) / 1e6 - millions) < 0.1


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56, 110])
def test_parameters_equal_a_count_by_layers(depth):
    def conv_and_norm(before, after, kernel):
        return before * after * kernel**2 + 2 * after

    total, before = conv_and_norm(3, 16, 3), 16
    for width in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            total += conv_and_norm(before, width, 3) + conv_and_norm(width, width, 3)
            total += conv_and_norm(before, width, 1) if before != width else 0
            before = width
    assert parameters(create(f"resnet{depth}", 100)) == total + 64 * 100 + 100


MAPS = {  # of 32x32 images: the map, and the side of each stage's map
    "resnet8x4": ((8, 8, 256), (32, 16, 8)),
    "wrn-16-2": ((8, 8, 128), (32, 16, 8)),
    "preact_resnet18": ((4, 4, 512), (32, 16, 8, 4)),
    "preact_resnet50": ((4, 4, 2048), (32, 16, 8, 4)),
    "vgg8": ((4, 4, 512), (32, 16, 8, 4, 4)),
    "densenet-40-12": ((8, 8, 448), (32, 16, 8)),
    "resnext29-2x64d": ((8, 8, 1024), (32, 16, 8)),
    "mobilenet_v2": ((2, 2, 1280), (16, 8, 4, 2)),
    "shufflenet_v1": ((4, 4, 960), (16, 8, 4)),
    "shufflenet_v2": ((4, 4, 1024), (16, 8, 4)),
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_have_the_stated_shape(name):
    network = create(name, 10)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    outputs, _ = jax.eval_shape(
        lambda x: network.init_with_output(jax.random.key(0), x, train=False), images
    )
    shape, sides = MAPS[name]
    assert outputs.logits.shape == (2, 10)
    assert outputs.features.shape == (2, *shape) == outputs.stages[-1].shape
    assert tuple(stage.shape[1] for stage in outputs.stages) == sides


def test_every_name_can_be_built():
    assert len({repr(create(name, 10)) for name in NAMES}) == len(NAMES) > 50


def test_batchnorm_of_every_network_is_synchronised():
    """One sum over the device axis for each BatchNorm: none is left without it."""
    for name in MAPS:
        network = create(name, 10).clone(axis_name="data")
        images = jnp.zeros((1, 32, 32, 3))
        variables = jax.eval_shape(
            lambda x, n=network: n.init(jax.random.key(0), x, train=False), images
        )
        norms = [path for path, _ in jax.tree.leaves_with_path(variables["batch_stats"])]

        def train(variables, network=network, images=images):
            _, updated = network.apply(variables, images, train=True, mutable="batch_stats")
            return updated

        jaxpr = str(jax.make_jaxpr(train, axis_env=[("data", 2)])(variables))
        assert jaxpr.count("psum") >= len(norms) // 2, name


def test_initialisation_has_the_stated_deviation():
    variables = create("resnet20", 100).init(
        jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False
    )
    kernel = variables["params"]["stage3_block2"]["conv1"]["kernel"]
    np.testing.assert_allclose(jnp.std(kernel), np.sqrt(2 / (9 * 64)), rtol=0.02)
    linear = variables["params"]["classifier"]["linear"]
    assert float(jnp.max(jnp.abs(linear["kernel"]))) <= 1 / 8
    assert float(jnp.max(jnp.abs(linear["bias"]))) > 0.05


def test_transfer_resize_equals_pytorch():
    """Bilinear with antialias; numbers from experiments/reference/losses.py."""
    file = pathlib.Path(__file__).parent / "reference" / "losses.json"
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


def cohort_of(*networks, image_shape=small.IMAGE_SHAPE, **options):
    graph = Graph(len(networks), cyclic_pairs(len(networks)))
    return make_cohort(
        networks,
        AFD(graph, **{"widths": (4,), **options}),
        small.optimizers(),
        image_shape=image_shape,
        classes=small.CLASSES,
    )


def test_maps_of_unequal_size_meet_in_the_common_shape():
    cohort = cohort_of(tiny.Tiny(5), create("resnet8", 5), image_shape=(16, 16, 3))
    assert [p.projections["transfer"].shape for p in cohort.peers] == [(4, 4, 4)] * 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: create("resnet33", 10), "networks = 'resnet33': did you mean 'resnet32'"),
        (lambda: create("tests.tiny:Nothing", 10), "could not build it.*Nothing"),
        (lambda: create("no_such_module:Net", 10), "could not build it"),
        (
            lambda: cohort_of(tiny.Tiny(5), tiny.LogitsOnly(5)),
            r"networks\[1\] = 'LogitsOnly': must return Outputs\(logits, features\)",
        ),
        (
            lambda: cohort_of(tiny.Tiny(5), tiny.FlatFeatures(5)),
            r"feature map \[batch, height, width, channels\].*returns \[batch, 2\]",
        ),
        (lambda: cohort_of(tiny.Two(5), tiny.Two(5)), r"networks\[0\] = 'Two': .*returns several"),
        (
            lambda: cohort_of(tiny.Stages(5, widths=[3, 4, 5]), tiny.Tiny(5)),
            r"networks\[0\] = 'Stages': has a field that cannot be hashed; give a tuple",
        ),
        (
            lambda: cohort_of(tiny.Tiny(7), tiny.Tiny(5)),
            r"networks\[0\].*logits of shape \[batch, 5\], returns \[batch, 7\]",
        ),
        (
            lambda: cohort_of(create("resnet8", 5), create("resnet8", 5), image_shape=(3, 9, 1)),
            r"networks\[0\] \(CifarResNet\): image size = \(3, 9\).*at least 4x4",
        ),
        (
            lambda: cohort_of(tiny.Tiny(5), tiny.Tiny(5), widths=(4,) * 4, kernel=4, stride=1),
            "discriminator.kernel = 4: the kernel does not fit",
        ),
        (
            lambda: make_cohort(
                [tiny.Tiny(5)],
                AFD(Graph(2, cyclic_pairs(2))),
                small.optimizers(),
                image_shape=(8, 8, 2),
                classes=5,
            ),
            "AFD with this graph takes 2 networks",
        ),
        (
            lambda: make_cohort(
                [tiny.Tiny(5)] * 2,
                AFD(Graph(2, cyclic_pairs(2))),
                {"logit": small.optimizers()["logit"]},
                image_shape=(8, 8, 2),
                classes=5,
            ),
            "by its feature loss; give that optimizer",
        ),
        (lambda: synchronised(cohort_of(tiny.NoAxis(5), tiny.Tiny(5)), "data"), "'axis_name'"),
        (lambda: AFD(Graph(2, ()), temperature=0.0), "method.temperature = 0.0"),
        (lambda: AFD(Graph(2, ()), objective="lsgan"), "method.objective = 'lsgan'"),
        (lambda: create("resnet9", 5), "did you mean 'resnet8'"),
    ],
)
def test_what_cannot_work_is_named_before_compiling(make, words):
    with pytest.raises(SettingError, match=words):
        make()
