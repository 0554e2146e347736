"""Methods on branches: ONE, OKDDip, PCL. Their numbers are checked in test_reference.py."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax.data import Recipe
from afd_jax.engine import parts
from afd_jax.engine.forward import apply, terms_of
from afd_jax.engine.inputs import views
from afd_jax.engine.plan import blank_views
from afd_jax.errors import SettingError
from afd_jax.methods import ONE, PCL, OKDDip
from afd_jax.networks import CifarResNet, DenseNet, ShuffleNetV2
from afd_jax.networks.branched import single
from afd_jax.runs.trained import load
from tests import small, tiny
from tests.leaves import nonzero
from tests.running import ROOT, SETTINGS, command


def cohort_of(method, network=None, **settings):
    network = network or tiny.Stages(small.CLASSES)
    settings = {"total_steps": 10, "optimizers": small.optimizers(), **small.SHAPES, **settings}
    return small.Cohort({"net": network}, method, **settings)


def part_reached(cohort, state, losses):
    """Outputs by node, and which parts of the network each (node, term) reaches."""
    plan, network, own = cohort.plan, cohort.plan.networks["net"], state.networks["net"]

    def loss(params):
        outputs = {}
        for name, each in plan.networks.items():
            given = params if name == "net" else state.networks[name].params
            images = blank_views(each, small.batch()["image"])
            outputs |= apply(plan, each, given, state.networks[name].statistics, images, {})[0]
        terms = terms_of(
            plan, network, outputs, {}, {}, {}, plan.seen(small.batch(), state.step, {})
        )
        return [jnp.mean(terms[node].logit[term]) for node, term in losses], outputs

    jacobian, outputs = jax.jit(jax.jacrev(loss, has_aux=True))(own.params)
    return outputs, [
        {part for part, tree in gradient["network"].items() if nonzero(tree)}
        for gradient in jacobian
    ]


@pytest.mark.parametrize(
    ("network", "shared"),
    [
        (CifarResNet(5, depth=8, widths=(3, 4, 5), stem_width=3), 1),
        (CifarResNet(5, depth=8, widths=(3, 4, 5), stem_width=3), 2),
        (DenseNet(5, depth=7, growth=3), 1),
        (ShuffleNetV2(5, widths=(4, 6, 8), blocks=(0, 0, 0), last=6), 2),
    ],
    ids=lambda x: str(x) if isinstance(x, int) else type(x).__name__,
)
def test_a_branch_with_the_shared_stages_is_the_plain_network(network, shared):
    """Same names, same shapes, same logits; so a branch can be used by itself."""
    module = ONE(branches=2, shared=shared).branch("x", network, 5)
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
    losses = [("branch 1", "distillation"), ("gated ensemble", "cross_entropy")]
    outputs, (divergence, entropy) = part_reached(cohort, small.begin(cohort), losses)
    gate = np.asarray(outputs["gated ensemble"].extras["gate"])
    assert gate.shape == (16, 3) and np.all(gate > 0)
    np.testing.assert_allclose(np.sum(gate, axis=1), 1, rtol=1e-6)
    logits = [np.asarray(outputs[f"branch {i}"].logits) for i in range(3)]
    mixed = sum(gate[:, i, None] * logits[i] for i in range(3))
    np.testing.assert_allclose(outputs["gated ensemble"].logits, mixed, rtol=1e-5, atol=1e-6)
    # The divergence of branch 1 from the ensemble reaches neither the gate nor other branches.
    assert divergence == {"shared", "branch1"}
    assert entropy == {"shared", "branch0", "branch1", "branch2", "heads"}
    assert cohort.graph.edges == tuple(("gated ensemble", f"branch {i}") for i in range(3))


def test_okddips_attention_sums_to_one_and_learns_from_the_divergences():
    cohort = cohort_of(OKDDip())
    losses = [(n, "distillation") for n in ("branch 0", "leader")] + [("branch 0", "cross_entropy")]
    outputs, (peer, leader, entropy) = part_reached(cohort, small.begin(cohort), losses)
    for i in range(3):
        attention = outputs[f"branch {i}"].extras["attention"]
        assert attention.shape == (16, 3)
        np.testing.assert_allclose(np.sum(attention, axis=1), 1, rtol=1e-6)
    assert not outputs["leader"].extras
    peers = {"shared", "branch0", "branch1", "branch2"}
    assert (peer, leader) == ({*peers, "heads"}, {*peers, "branch3"})
    assert entropy == {"shared", "branch0"}
    assert all(source != "leader" for source, _ in cohort.graph.edges)  # it teaches nobody


def test_pcls_teachers_are_constants():
    cohort = cohort_of(PCL(), own_augmentation=True)
    state = small.begin(cohort)
    # Away from the start, where a branch and its average agree.
    moved = jax.tree.map(lambda x: 0.5 * x, state.networks["average of net"].params)
    average = state.networks["average of net"].replace(params=moved)
    state = state.replace(networks={**state.networks, "average of net": average})
    end = "ensemble classifier"
    losses = [("branch 2", "distillation"), ("branch 2", "mean_teachers"), (end, "cross_entropy")]
    _, (divergence, means, entropy) = part_reached(cohort, state, losses)
    assert divergence == means == {"shared", "branch2"}
    assert entropy == {"shared", "branch0", "branch1", "branch2", "heads"}
    assert not cohort.plan.networks["average of net"].optimizers
    for i in range(3):
        others = [f"average of branch {j}" for j in range(3) if j != i]
        assert cohort.graph.sources(f"branch {i}") == (end, *others)


def test_each_branch_of_pcl_and_its_average_see_one_augmentation():
    recipe = Recipe(mean=(0.5, 0.5), std=(0.5, 0.5), pad=2, flip=True)
    image = np.random.default_rng(0).integers(256, size=(16, *small.IMAGE_SHAPE), dtype=np.uint8)
    batch = {"image": jnp.asarray(image), "index": jnp.arange(16)}

    def seen(own_augmentation):
        cohort = cohort_of(PCL(), own_augmentation=own_augmentation)
        return views(cohort.plan, recipe.train, jax.random.key(0), batch)

    found = seen(True)
    own = found["net"]
    assert own.shape == (16, 3, *small.IMAGE_SHAPE)
    np.testing.assert_array_equal(own, found["average of net"])
    for a, b in itertools.combinations(range(3), 2):
        assert np.any(own[:, a] != own[:, b])
    assert seen(False)["net"].shape == batch["image"].shape


@pytest.mark.parametrize(("method", "count"), [(ONE, 1), (OKDDip, 1), (PCL, 2)])
def test_the_divergences_grow_with_the_ramp_up_and_weight_zero_leaves_them_out(method, count):
    cohort = cohort_of(method(ramp_up=0.5))
    state = small.begin(cohort)
    if "average of net" in state.networks:  # or it would agree with what it follows
        own = state.networks["average of net"]
        own = own.replace(params=jax.tree.map(lambda x: 0.7 * x, own.params))
        state = state.replace(networks={**state.networks, "average of net": own})
    losses = jax.jit(
        lambda state: parts.losses(cohort.plan, state, small.batch())["branch 0"].logit
    )

    def soft(step):
        found = losses(state.replace(step=jnp.int32(step)))
        return {n: float(jnp.mean(v)) for n, v in found.items() if n != "cross_entropy"}

    start, middle, end, later = (soft(step) for step in (0, 3, 5, 9))
    assert len(start) == count
    for name, value in end.items():
        assert later[name] == value > 0
        np.testing.assert_allclose(start[name] / value, np.exp(-5), rtol=1e-5)
        np.testing.assert_allclose(middle[name] / value, np.exp(-5 * 0.4**2), rtol=1e-5)
    without = dataclasses.replace(cohort.plan, method=method(distillation_weight=0.0))
    terms = jax.eval_shape(lambda: parts.losses(without, state, small.batch()))
    assert [*terms["branch 0"].logit] == ["cross_entropy"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: cohort_of(ONE(), tiny.Tiny(5)), "networks = 'net': has no stages to share"),
        (
            lambda: cohort_of(ONE(shared=3)),
            "method.shared = 3: net has 3 stages, of which 1 to 2 can be shared",
        ),
        (lambda: cohort_of(ONE(), twins=True), "twins = True: the branches share layers"),
        (lambda: cohort_of(ONE(), total_steps=None), "progress = None: say how long"),
        (lambda: cohort_of(ONE(), tiny.Same(5)), r"networks = \['ConvNorm_0'\]: Same names"),
        (lambda: cohort_of(ONE(), tiny.OneStage(5)), "networks = 'net': has one stage, so"),
        (lambda: cohort_of(ONE(), second_forward=True), "second_forward = True: has no effect on"),
        (lambda: ONE(branches=1), "method.branches = 1: must be a whole number and at least 2"),
        (lambda: ONE(ramp_up=2.0), "method.ramp_up = 2.0: must be a number and at least 0"),
        (
            lambda: cohort_of(ONE(), graph="cyclic"),
            "graph = 'cyclic': ONE has its own; set config.graph='own'",
        ),
        (
            lambda: small.cohort(method=PCL(), total_steps=4),
            r"networks = \('a', 'b'\): PCL branches one network",
        ),
    ],
)
def test_what_cannot_work_is_named(make, words):
    with pytest.raises(SettingError, match=words):
        make()


def test_the_branches_and_averages_of_a_run_can_be_used(tmp_path):
    config = f"{ROOT}/configs/cifar100_pcl.py:tests.tiny:Stages"
    more = [
        "--config.data.name=digits",
        "--config.data.mean=(0.3,)",
        "--config.data.std=(0.4,)",
        "--config.data.pad=1",
        "--config.duration=1 epochs",
    ]
    assert command(tmp_path / "w", *more, config=config, settings=SETTINGS[:-1]) == 0
    summary = json.loads((tmp_path / "w" / "summary.json").read_text())
    ends = [*(f"branch {i}" for i in range(3)), "ensemble classifier"]
    assert [n["name"] for n in summary["networks"]] == ends[:3]
    others = [ends[3], *(f"average of {end}" for end in ends)]
    assert [n["name"] for n in summary["others"]] == others
    plain = tiny.Stages(10).init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)
    count = sum(x.size for x in jax.tree.leaves(plain["params"]))
    assert summary["networks"][1]["parameters"] == summary["others"][2]["parameters"] == count
    x = np.random.default_rng(0).integers(256, size=(4, 8, 8, 1), dtype=np.uint8)
    names = ("branch 1", "ensemble classifier", "average of branch 1")
    branch, ensemble, average = (load(tmp_path / "w", name, trust=True) for name in names)
    assert isinstance(branch.module, tiny.Stages) and isinstance(average.module, tiny.Stages)
    assert branch(x).logits.shape == ensemble(x).logits.shape == (4, 10)
    both = ensemble.module.apply(ensemble.variables, ensemble.recipe.normalise(x), train=False)
    np.testing.assert_allclose(branch(x).logits, both[1].logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ensemble(x).logits, both[3].logits, rtol=1e-4, atol=1e-5)
    assert np.any(average(x).logits != branch(x).logits)
    with pytest.raises(SettingError, match=r"node = 'branch 8': .*branch 2"):
        load(tmp_path / "w", "branch 8", trust=True)
