"""Methods on branches: ONE, OKDDip, PCL. Their numbers are checked in test_reference.py."""

import functools
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax import losses
from afd_jax.engine.build import make_cohort
from afd_jax.data import Recipe
from afd_jax.errors import SettingError
from afd_jax.engine.forward import apply_peer
from afd_jax.engine.init import init_state
from afd_jax.methods import ONE, PCL, OKDDip
from afd_jax.networks import CifarResNet, DenseNet, ShuffleNetV2
from afd_jax.networks.branched import single
from afd_jax.engine.devices import make_parallel
from afd_jax.engine.step import train_step, views
from afd_jax.runs.trained import load_network
from tests import small, tiny
from tests.running import ROOT, SETTINGS, command


def cohort_of(method, network=None, **options):
    return make_cohort(
        [network or tiny.Stages(small.CLASSES)],
        method,
        small.optimizers(),
        image_shape=small.IMAGE_SHAPE,
        classes=small.CLASSES,
        **{"total_steps": 10, **options},
    )


def outputs_of(cohort, state):
    return [
        output
        for p, peer in enumerate(state.peers)
        for output in apply_peer(cohort, p, peer.params, peer.statistics, images(cohort, p), {})[0]
    ]


def images(cohort, p):
    batch = small.batch()["image"]
    count = cohort.peers[p].views
    return batch if count == 1 else jnp.stack([batch] * count, axis=1)


def gradient(cohort, state, k, term):
    """Of one loss of node k, with respect to all parameters of the first network."""
    context = cohort.context(small.batch(), state)

    def loss(params):
        peers = (state.peers[0].replace(params=params), *state.peers[1:])
        outputs = outputs_of(cohort, state.replace(peers=peers))
        return losses.mean(cohort.method.logit_terms(k, outputs, context)[0][term])

    return jax.jit(jax.grad(loss))(state.peers[0].params)["network"]


def reached(tree):
    """Which parts of the network a gradient reaches."""
    return {name for name, part in tree.items() if any(np.any(x) for x in jax.tree.leaves(part))}


@pytest.mark.parametrize("shared", [1, 2])
@pytest.mark.parametrize(
    "network",
    [
        CifarResNet(5, depth=8, widths=(3, 4, 5), stem_width=3),
        DenseNet(5, depth=7, growth=3),
        ShuffleNetV2(5, widths=(4, 6, 8), blocks=(0, 0, 0), last=6),
    ],
    ids=lambda network: type(network).__name__,
)
def test_a_branch_with_the_shared_stages_is_the_plain_network(network, shared):
    """Same names, same shapes, same logits; so a branch can be used by itself."""
    module = ONE(branches=2, shared=shared).branch("x", network)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))

    @jax.jit
    def both():
        together, variables = module.init_with_output(jax.random.key(0), x, train=False)
        plain, own, output = single(module, variables, 1)
        assert plain == network and output == 0
        fresh = jax.eval_shape(lambda: plain.init(jax.random.key(0), x, train=False))
        assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, fresh)
        return together[0].logits, together[1].logits, plain.apply(own, x, train=False).logits

    zero, one, alone = both()
    np.testing.assert_allclose(alone, one, atol=1e-6)
    assert np.any(zero != one)


def test_ones_gate_sums_to_one_and_its_teacher_learns_from_the_labels_alone():
    cohort = cohort_of(ONE())
    state = init_state(cohort, jax.random.key(0))
    outputs = outputs_of(cohort, state)
    gate = outputs[3].extras["gate"]
    assert gate.shape == (16, 3) and np.all(gate > 0)
    np.testing.assert_allclose(np.sum(gate, axis=1), 1, rtol=1e-6)
    mixed = sum(np.asarray(gate)[:, i, None] * np.asarray(outputs[i].logits) for i in range(3))
    np.testing.assert_allclose(outputs[3].logits, mixed, rtol=1e-5, atol=1e-6)
    # The divergence of branch 1 from the ensemble reaches neither the gate nor other branches.
    assert reached(gradient(cohort, state, 1, "distillation")) == {"shared", "branch1"}
    everything = {"shared", "branch0", "branch1", "branch2", "heads"}
    assert reached(gradient(cohort, state, 3, "cross_entropy")) == everything


def test_okddips_attention_sums_to_one_and_learns_from_the_divergences():
    cohort = cohort_of(OKDDip())
    state = init_state(cohort, jax.random.key(0))
    outputs = outputs_of(cohort, state)
    for peer in outputs[:3]:
        assert peer.extras["attention"].shape == (16, 3)
        np.testing.assert_allclose(np.sum(peer.extras["attention"], axis=1), 1, rtol=1e-6)
    assert not outputs[3].extras
    peers = {"shared", "branch0", "branch1", "branch2"}
    assert reached(gradient(cohort, state, 0, "distillation")) == {*peers, "heads"}
    assert reached(gradient(cohort, state, 3, "distillation")) == {*peers, "branch3"}
    assert reached(gradient(cohort, state, 0, "cross_entropy")) == {"shared", "branch0"}
    assert not any(3 in edge[:1] for edge in cohort.method.graph.edges)  # the leader teaches nobody


def test_pcls_teachers_are_constants():
    cohort = cohort_of(PCL())
    state = init_state(cohort, jax.random.key(0))
    # Away from the start, where a branch and its average agree.
    moved = state.peers[1].replace(params=jax.tree.map(lambda x: 0.5 * x, state.peers[1].params))
    state = state.replace(peers=(state.peers[0], moved))
    for term in ("distillation", "mean_teachers"):
        assert reached(gradient(cohort, state, 2, term)) == {"shared", "branch2"}
    everything = {"shared", "branch0", "branch1", "branch2", "heads"}
    assert reached(gradient(cohort, state, 3, "cross_entropy")) == everything
    assert cohort.peers[1].optimizers == {} and cohort.peers[1].follows == 0
    sources = [cohort.method.graph.sources(i) for i in range(3)]
    assert sources == [(3, 5, 6), (3, 4, 6), (3, 4, 5)]


def test_each_branch_of_pcl_and_its_average_see_one_augmentation():
    recipe = Recipe(mean=(0.5, 0.5), std=(0.5, 0.5), pad=2, flip=True)
    image = np.random.default_rng(0).integers(256, size=(16, *small.IMAGE_SHAPE), dtype=np.uint8)
    batch = {"image": jnp.asarray(image), "index": jnp.arange(16)}
    own, average = views(cohort_of(PCL()), recipe.train, jax.random.key(0), batch)
    assert own.shape == (16, 3, *small.IMAGE_SHAPE)
    np.testing.assert_array_equal(own, average)
    for a, b in itertools.combinations(range(3), 2):
        assert np.any(own[:, a] != own[:, b])
    shared = cohort_of(PCL(own_augmentation=False))
    (own, _) = views(shared, recipe.train, jax.random.key(0), batch)
    assert own.shape == batch["image"].shape


@pytest.mark.parametrize(("method", "terms"), [(ONE, 1), (OKDDip, 1), (PCL, 2)])
def test_the_divergences_grow_with_the_ramp_up_and_weight_zero_leaves_them_out(method, terms):
    cohort = cohort_of(method(ramp_up=0.5))
    state = init_state(cohort, jax.random.key(0))
    state = state.replace(
        peers=tuple(
            peer.replace(params=jax.tree.map(lambda x, p=p: (1 - 0.3 * p) * x, peer.params))
            for p, peer in enumerate(state.peers)
        )
    )
    outputs = outputs_of(cohort, state)

    def soft(step, method=cohort.method):
        context = cohort.context(small.batch(), state.replace(step=jnp.int32(step)))
        terms, _ = method.logit_terms(0, outputs, context)
        return {n: float(jnp.mean(v)) for n, v in terms.items() if n != "cross_entropy"}

    start, middle, end, later = (soft(step) for step in (0, 3, 5, 9))
    assert len(start) == terms
    for name, value in end.items():
        assert later[name] == value > 0
        np.testing.assert_allclose(start[name] / value, np.exp(-5), rtol=1e-5)
        np.testing.assert_allclose(middle[name] / value, np.exp(-5 * 0.4**2), rtol=1e-5)
    assert soft(9, method(distillation_weight=0.0)) == {}


@pytest.mark.parametrize(("method", "mode"), [(ONE, "shard_map"), (PCL, "pmap")])
def test_eight_devices_equal_one(method, mode):
    """The gate's BatchNorm and the views' are synchronised, too."""
    recipe = Recipe(mean=(0.5, 0.4), std=(0.2, 0.3), pad=2, flip=True)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(256, size=(32, *small.IMAGE_SHAPE), dtype=np.uint8),
        "label": rng.integers(small.CLASSES, size=32, dtype=np.int32),
        "index": np.arange(32, dtype=np.int32),
    }
    ends = []
    for devices, how in ((1, "jit"), (8, mode)):
        parallel = make_parallel(how, devices)
        cohort = parallel.prepare(cohort_of(method()))
        state = parallel.put_state(init_state(cohort, jax.random.key(0)))
        function = functools.partial(train_step, cohort, preprocess=recipe.train)
        step = parallel.compile(function, donate=True)
        for _ in range(2):
            state, metrics = step(state, parallel.put_batch(batch))
        # Not the optimizer states: before a BatchNorm, a bias has a gradient of rounding alone.
        peers = [(peer.params, peer.statistics) for peer in state.peers]
        ends.append(jax.device_get((peers, metrics)))
    assert small.largest_difference(*ends) < 1e-5


def test_the_branches_and_averages_of_a_run_can_be_used(tmp_path):
    config = f"{ROOT}/configs/cifar100_pcl.py:tests.tiny:Stages"
    more = [
        "--config.data.name=digits",
        "--config.data.mean=(0.3,)",
        "--config.data.std=(0.4,)",
        "--config.data.pad=1",
    ]
    assert command(tmp_path / "w", *more, config=config, settings=SETTINGS[:-1]) == 0
    summary = json.loads((tmp_path / "w" / "summary.json").read_text())
    assert [n["name"] for n in summary["networks"]] == [
        f"tests.tiny:Stages branch {i}" for i in range(3)
    ]
    names = [n["name"] for n in summary["others"]]
    assert names[0] == "tests.tiny:Stages ensemble classifier"
    assert names[1:] == [f"average of tests.tiny:Stages {end}" for end in ENDS]
    plain = tiny.Stages(10).init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)
    count = sum(x.size for x in jax.tree.leaves(plain["params"]))
    assert summary["networks"][1]["parameters"] == summary["others"][2]["parameters"] == count
    x = np.random.default_rng(0).integers(256, size=(4, 8, 8, 1), dtype=np.uint8)
    branch, ensemble, average = (load_network(tmp_path / "w", k) for k in (1, 3, 5))
    assert isinstance(branch.module, tiny.Stages) and isinstance(average.module, tiny.Stages)
    assert branch(x).logits.shape == ensemble(x).logits.shape == (4, 10)
    both = ensemble.module.apply(ensemble.variables, ensemble.recipe.normalise(x), train=False)
    np.testing.assert_allclose(branch(x).logits, both[1].logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ensemble(x).logits, both[3].logits, rtol=1e-4, atol=1e-5)
    assert np.any(average(x).logits != branch(x).logits)
    with pytest.raises(SettingError, match="node = 8: the run has the nodes 0 to 7"):
        load_network(tmp_path / "w", 8)


ENDS = ("branch 0", "branch 1", "branch 2", "ensemble classifier")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: cohort_of(ONE(), tiny.Tiny(5)), "networks = 'Tiny': has no stages to share"),
        (
            lambda: cohort_of(ONE(shared=3)),
            r"method.shared = 3: Stages has 3 stages, of which 1 to 2 can be shared",
        ),
        (lambda: cohort_of(ONE(), alone=True), "alone = True: the branches share layers"),
        (lambda: cohort_of(ONE(), total_steps=None), "total_steps = None: say how long"),
        (lambda: cohort_of(ONE(), tiny.Same(5)), r"networks = \['ConvNorm_0'\]: Same names"),
        (lambda: cohort_of(ONE(), tiny.OneStage(5)), "networks = 'OneStage': has one stage, so"),
        (lambda: cohort_of(ONE(second_forward=True)), "second_forward = True: has no effect on"),
        (lambda: ONE(branches=1), "method.branches = 1: must be a whole number and at least 2"),
        (lambda: ONE(ramp_up=2.0), "method.ramp_up = 2.0: must be a number and at least 0"),
        (
            lambda: ONE.from_settings("cyclic", ["a"], {}),
            "graph = 'cyclic': ONE has its own; set config.graph='own'",
        ),
        (
            lambda: PCL.from_settings("own", ["a", "b"], {}),
            r"networks = \('a', 'b'\): PCL branches one network",
        ),
    ],
)
def test_what_cannot_work_is_named(make, words):
    with pytest.raises(SettingError, match=words):
        make()
