"""One device, pmap, shard_map and jit over eight fake devices: the same numbers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from afd_jax.data import Recipe
from afd_jax.engine.devices import make_devices
from afd_jax.engine.evaluate import eval_step
from afd_jax.engine.step import train_step
from afd_jax.errors import SettingError
from afd_jax.methods import (
    AIKD,
    CRD,
    CSKD,
    DIST,
    MCL,
    MGD,
    ONE,
    PCL,
    PKT,
    PSKD,
    RKD,
    SP,
    BlockKD,
    EnsembleKD,
    Method,
    SwitOKD,
    Terms,
    View,
    soft,
)
from afd_jax.methods.batch import Batch
from afd_jax.methods.critic import ProbabilityCritic
from afd_jax.networks import Outputs
from tests import small, tiny

RECIPE = Recipe(mean=(0.5, 0.4), std=(0.2, 0.3), pad=2, pad_mode="reflect", flip=True)
NNX = functools.partial(tiny.InNNX, 5)
ROUNDING = 1e-9  # of a few steps in double precision
SINGLE = 1e-5  # of an evaluation, which compares maps in single precision


def uint8_batch(seed, size=32):
    rng = np.random.default_rng(seed)
    image = rng.integers(256, size=(size, *small.IMAGE_SHAPE), dtype=np.uint8)
    partner = rng.permutation(size)
    return {
        "image": image,
        "label": rng.integers(small.CLASSES, size=size, dtype=np.int32),
        "index": rng.permutation(1000)[:size].astype(np.int32),
        "partner_image": image[partner],
        "partner": partner.astype(np.int32),
    }


def mixed():
    """Linen beside NNX, which teach each other and learn from a frozen NNX teacher."""
    return small.Cohort(
        {"linen": tiny.Stages(5), "nnx": functools.partial(tiny.InNNX, 5, channels=7)},
        small.afd(),
        teachers={"teacher": NNX},
        graph=[("nnx", "linen"), ("linen", "nnx"), ("teacher", "linen"), ("teacher", "nnx")],
        optimizers=small.optimizers(),
        **small.SHAPES,
    )


def as_double(x):
    return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x


@jax.enable_x64(True)  # so that no rounding decides on which side of 0 a value is
def steps(cohort, mode, devices, count=3, *, prepared=True, evaluated=False):
    """Networks after some steps with augmentation, memory, last metrics, sums of an evaluation.

    Optimizer states are left out: before a BatchNorm, a bias has a gradient of rounding alone.
    """
    devices = make_devices(mode, devices)
    plan = devices.prepare(cohort.plan) if prepared else cohort.plan
    state = devices.put_state(jax.tree.map(as_double, small.begin(cohort)))

    def train(rng, batch):
        return as_double(RECIPE.train(rng, batch))

    def test(rng, batch):
        return as_double(RECIPE.test(rng, batch))

    def one(state, batch, axis_name):
        more = {"preprocess": train, "axis_name": axis_name, "detailed": evaluated}
        batch = {n: x for n, x in batch.items() if "partner" not in n or plan.method.pairs}
        return train_step(plan, state, batch, **more)

    step, compilations = devices.compile(one, donate=True), []

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            compilations.append(event)

    state, metrics = step(state, devices.put_batch(uint8_batch(0)))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for seed in range(1, count):
            state, metrics = step(state, devices.put_batch(uint8_batch(seed)))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not compilations
    sums = {}
    if evaluated:
        evaluate = functools.partial(eval_step, plan, preprocess=test)
        batch = {**uint8_batch(3), "mask": np.arange(32) < 27}
        sums = devices.compile(evaluate, donate=False)(state, devices.put_batch(batch))
    networks = {name: (own.params, own.statistics) for name, own in state.networks.items()}
    return jax.device_get((networks, state.memory, metrics, sums))


@pytest.fixture(scope="module")
def one_device():
    return steps(mixed(), "jit", 1, evaluated=True)


@pytest.mark.parametrize("mode", ["pmap", "shard_map", "jit"])
def test_eight_devices_equal_one_for_linen_beside_nnx_and_under_an_nnx_teacher(mode, one_device):
    found = steps(mixed(), mode, 8, evaluated=True)
    (*ours, sums), (*theirs, expected) = found, one_device
    assert small.largest_difference(ours, theirs) < ROUNDING
    assert small.largest_difference(sums, expected) < SINGLE


@pytest.mark.parametrize("mode", ["pmap", "shard_map", "jit"])
def test_evaluation_on_eight_devices_equals_one(mode):
    """Pairs of examples on different devices, and padding in some of them alone, are counted."""
    cohort = small.cohort(twins=True)
    batch = {**uint8_batch(3), "mask": np.arange(32) < 27}
    sums = []
    for how in (("jit", 1), (mode, 8)):
        devices = make_devices(*how)
        plan = devices.prepare(cohort.plan)
        more = {"divergences": True, "preprocess": RECIPE.test}
        evaluate = functools.partial(eval_step, plan, **more)
        state = devices.put_state(small.begin(cohort))
        compiled = devices.compile(evaluate, donate=False)
        sums.append(jax.device_get(compiled(state, devices.put_batch(batch))))
    assert small.largest_difference(*sums) < SINGLE
    assert min(sums[0]["divergence"].values()) > 1e-2
    for pair in (("a", "b"), ("a alone", "b alone")):
        # Large enough for the comparison to see them.
        assert min(np.min(np.abs(x)) for x in sums[0]["similarity"][pair].values()) > 1e-2


def test_without_synchronised_norm_they_differ(one_device):
    """The comparison above can fail: leave the device axis out of BatchNorm and see it do so."""
    networks, *_ = steps(mixed(), "pmap", 8, prepared=False)
    for name in ("linen", "nnx"):
        assert small.largest_difference(networks[name], one_device[0][name]) > 1e-3
    before = small.begin(mixed()).networks["teacher"]
    frozen = (before.params, before.statistics)
    assert small.largest_difference(networks["teacher"], frozen) == 0


@dataclasses.dataclass(frozen=True)
class Relations(Method):
    """How alike a source finds each two examples of the whole batch, an example with itself not."""

    def node(self, own: View, batch: Batch) -> Terms:
        return Terms(logit=soft.labels(own.logits, batch))

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        def alike(logits):
            everyone = batch.whole(logits)
            itself = batch.place[:, None] == np.arange(len(everyone))[None]
            return jnp.where(itself, 0, logits @ everyone.T)

        return Terms(
            logit={"relations": jnp.mean((alike(own.logits) - alike(source.logits)) ** 2, 1)}
        )


class Loud(tiny.Wider):
    """Is sure of what it says, so that it is far from others."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        said = tiny.Wider(self.classes, axis_name=self.axis_name)(images, train=train)
        return Outputs(8 * said.logits, said.features)


# Whose discriminator keeps singular vectors, equal on all devices.
SPECTRAL = functools.partial(AIKD, critic=ProbabilityCritic(loss="wasserstein"))
RUN = {"total_steps": 4, "steps_per_epoch": 2, "examples": 1000}
UNLIKE = {"networks": {"a": tiny.Tiny(5), "b": Loud(5)}}
PEERS = {"a": tiny.Tiny(5), "b": tiny.Stages(5)}
TAUGHT = {"teachers": {"teacher": tiny.Stages(5, widths=(3, 4, 6))}}
STAGED = ("one", "pcl", "sp", "rkd", "pkt", "mgd", "block_kd")
SEVERAL = {"teachers": [tiny.Tiny(5), tiny.Stages(5, widths=(3, 4, 6))]}
OTHERS = {
    # What a method remembers of each example, a partner, and a snapshot.
    "ps_kd": (functools.partial(PSKD), "pmap", 2, {}),
    "cs_kd": (CSKD, "pmap", 2, {}),
    "ai_kd": (SPECTRAL, "pmap", 2, {"teachers": {"teacher": NNX}}),
    # Which compares each example with those of other devices.
    "relations": (Relations, "pmap", 8, {"teachers": {"teacher": NNX}}),
    "relations, shard_map": (Relations, "shard_map", 8, {"teachers": {"teacher": NNX}}),
    "dist": (DIST, "pmap", 8, TAUGHT),
    "dist, shard_map": (DIST, "shard_map", 8, TAUGHT),
    # Whose gate is averaged over devices like the network.
    "ensemble_kd": (EnsembleKD, "shard_map", 8, SEVERAL),
    # Which asks the whole batch whether to step.
    "switokd": (SwitOKD, "pmap", 8, UNLIKE),
    "switokd, shard_map": (
        SwitOKD,
        "shard_map",
        8,
        {"networks": {"a": tiny.Tiny(5), "b": Loud(5)}},
    ),
    "sp": (SP, "pmap", 8, TAUGHT),
    "rkd": (RKD, "shard_map", 8, TAUGHT),
    "pkt": (PKT, "pmap", 8, TAUGHT),
    "mcl": (functools.partial(MCL, size=4), "pmap", 8, {"networks": PEERS}),
    # Which remembers each example and draws others to compare it with.
    "crd": (functools.partial(CRD, negatives=7, size=4), "pmap", 8, TAUGHT),
    # Which draws a mask for each example.
    "mgd": (MGD, "shard_map", 8, TAUGHT),
    # Whose connectors have BatchNorm in front of a teacher that has fixed statistics.
    "block_kd": (BlockKD, "shard_map", 8, TAUGHT),
    # The gate's BatchNorm and the views' are synchronised, too.
    "one": (functools.partial(ONE, branches=2), "shard_map", 8, {}),
    "pcl": (functools.partial(PCL, branches=2), "pmap", 8, {"own_augmentation": True}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_methods_on_several_devices_equal_one(name):
    make, mode, devices, more = OTHERS[name]
    networks = {"a": tiny.Stages(5) if name in STAGED else tiny.Tiny(5)}
    cohort = small.Cohort(
        **{"networks": networks, **small.SHAPES, **RUN, **more},
        method=make(),
        optimizers=small.optimizers(),
    )
    found, expected = (steps(cohort, *how) for how in ((mode, devices), ("jit", 1)))
    assert small.largest_difference(found, expected) < ROUNDING
    assert name != "ps_kd" or np.any(expected[1]["a"])
    if name.startswith("switokd"):
        assert sorted(expected[2][node]["paused"] for node in "ab") == [0, 1]


def test_each_gradient_is_averaged_in_one_piece():
    cohort = small.cohort(small.UNEQUAL)
    plan, state = cohort.plan.with_axis("data"), small.begin(cohort)
    step = functools.partial(train_step, plan, axis_name="data", detailed=False)
    jaxpr = jax.make_jaxpr(step, axis_env=[("data", 2)])(state, small.batch())
    averaged = [v.aval.size for e in jaxpr.eqns if e.primitive.name == "psum" for v in e.invars]
    counts = []
    for name, network in plan.networks.items():
        for mask in network.trains.values():
            pairs = jax.tree.map(lambda x, m: x.size * m, state.networks[name].params, mask)
            counts.append(sum(jax.tree.leaves(pairs)))
    assert len(counts) == 6 and min(counts) > 100
    assert sorted(size for size in averaged if size > 100) == sorted(counts)


def test_auto_is_pmap_on_several_devices():
    assert make_devices("auto").mode == "pmap" and len(make_devices("auto").devices) == 8
    assert make_devices("auto", 1).mode == "jit"


def without_axis():
    cohort = small.Cohort([tiny.NoAxis(5)] * 2, small.afd(), **small.SHAPES)
    make_devices("shard_map", 8).prepare(cohort.plan)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: make_devices("pmapp"), "parallel.mode = 'pmapp': did you mean 'pmap'"),
        (lambda: make_devices("jit", 9), "parallel.devices = 9: must be a whole number"),
        (lambda: make_devices("pmap", 8).check_batch_size("batch_size", 12), "multiple of the 8"),
        (without_axis, r"networks\[0\] = 'NoAxis': has BatchNorm statistics but no field"),
    ],
)
def test_bad_devices_are_named(make, words):
    with pytest.raises(SettingError, match=words):
        make()
