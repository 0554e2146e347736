"""The arrows of the gradients, the reductions, and the options of one update."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax import losses
from afd_jax.build import make_cohort
from afd_jax.errors import SettingError
from afd_jax.evaluate import eval_step
from afd_jax.forward import apply_peer
from afd_jax.graph import Graph, all_pairs, cyclic_pairs
from afd_jax.heads import BoundHead
from afd_jax.initial import init_state
from afd_jax.methods import AFD, DML, KDCL, Alignment, Independent
from afd_jax.optim import sgd
from afd_jax.step import train_step
from tests import small, tiny

UNEQUAL = ((3, 4, 5), (3, 4, 7))


def update(cohort, steps=1, key=0, batch=None):
    state = init_state(cohort, jax.random.key(key))
    step = jax.jit(functools.partial(train_step, cohort))
    for _ in range(steps):
        state, metrics = step(state, batch or small.batch())
    return state, metrics


def changed(before, after):
    """Names of the leaves that differ."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    keystr = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    return {
        keystr(path)
        for (path, a), b in pairs
        if jnp.issubdtype(a.dtype, jnp.number) and not np.array_equal(a, b)
    }


def names(tree):
    keystr = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    return {keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.fixture(scope="module")
def pair():
    """Cohort, state, and every loss as a function of all parameters and both discriminators."""
    cohort = small.cohort(UNEQUAL)
    state = init_state(cohort, jax.random.key(0))
    batch = small.batch()

    def loss(update, k, params, critics):
        outputs = [
            apply_peer(cohort, j, params[j], state.peers[j].statistics, batch["image"], {})[0][0]
            for j in range(2)
        ]
        heads = {
            name: BoundHead(
                cohort.peers[k].discriminators[name],
                {**state.peers[k].discriminators[name], "params": critics[k][name]},
            )
            for name in cohort.peers[k].discriminators
        }
        terms = {
            "logit": lambda: cohort.method.logit_terms(k, outputs, cohort.context(batch, state)),
            "feature": lambda: cohort.method.feature_terms(k, outputs, heads),
            "discriminator": lambda: cohort.method.discriminator_terms(k, outputs, heads),
        }[update]()[0]
        return sum(losses.mean(values) for values in terms.values())

    params = [peer.params for peer in state.peers]
    critics = [{n: v["params"] for n, v in peer.discriminators.items()} for peer in state.peers]
    return cohort, state, params, critics, loss


def nonzero(tree):
    keystr = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    return {
        keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if np.any(leaf)
    }


def test_logit_loss_gives_its_source_no_gradient(pair):
    """The loss itself treats its source as a constant, whoever differentiates it."""
    _, _, params, critics, loss = pair
    own, source = jax.jit(jax.grad(functools.partial(loss, "logit", 0)))(params, critics)
    assert nonzero(own["network"]) == names(own["network"])
    assert not nonzero(source)
    assert not nonzero(own["projections"])


def test_generator_loss_reaches_the_extractor_only(pair):
    _, _, params, critics, loss = pair
    gradients = jax.jit(jax.grad(functools.partial(loss, "feature", 1), (0, 1)))(params, critics)
    other, own = gradients[0]
    assert not nonzero(other)
    assert nonzero(own["network"]) == {
        name for name in names(own["network"]) if not name.startswith("classifier")
    }
    assert nonzero(own["projections"]) == names(own["projections"]) != set()


def test_discriminator_update_moves_no_network_and_generator_no_discriminator():
    """In the step: one optimizer at a time has a rate above zero; see what moves."""
    still = sgd(0.0)
    groups = {
        "logit": "peers/{k}/params/network",
        "feature": "peers/{k}/params",
        "discriminator": "peers/{k}/discriminators",
    }
    for moving, prefix in groups.items():
        opt = {u: sgd(0.1) if u == moving else still for u in groups}
        cohort = small.cohort(UNEQUAL, opt=opt)
        before = init_state(cohort, jax.random.key(0))
        after, _ = jax.jit(functools.partial(train_step, cohort))(before, small.batch())
        moved = {
            name
            for name in changed(before, after)
            if "/statistics/" not in name and "batch_stats" not in name and name != "step"
        }
        expected = {
            name
            for name in names(before)
            for k in (0, 1)
            if name.startswith(prefix.format(k=k)) and "batch_stats" not in name
        }
        if moving == "feature":
            expected = {name for name in expected if "classifier" not in name}
        assert moved == expected, moving


def test_feature_optimizer_leaves_the_classifier_alone_even_by_weight_decay():
    cohort = small.cohort(UNEQUAL)
    state = init_state(cohort, jax.random.key(0))
    feature = names(state.peers[1].optimizers["feature"])
    assert not any("classifier" in name for name in feature)
    assert any("projections/transfer" in name for name in feature)
    logit = names(state.peers[1].optimizers["logit"])
    assert any("classifier" in name for name in logit)
    assert not any("transfer" in name for name in logit)


@pytest.mark.parametrize(
    "method",
    [
        functools.partial(AFD, distillation_weight=0.0, adversarial_weight=0.0),
        functools.partial(Alignment, distillation_weight=0.0, alignment_weight=0.0),
        functools.partial(DML, distillation_weight=0.0),
        functools.partial(KDCL, distillation_weight=0.0),
    ],
)
def test_weights_zero_are_independent_training(method):
    graph = Graph(2, cyclic_pairs(2))
    a, _ = update(small.cohort(method=method(graph)), steps=2)
    b, _ = update(small.cohort(method=Independent(graph)), steps=2)
    assert not changed(a, b)


def test_afd_without_its_adversary_is_softened_mutual_learning():
    graph = Graph(2, cyclic_pairs(2))
    a, _ = update(small.cohort(method=AFD(graph, adversarial_weight=0.0)), steps=2)
    b, _ = update(small.cohort(method=DML(graph, temperature=3.0)), steps=2)
    assert not changed(a, b)


def test_alignment_moves_extractor_and_transfer_only():
    """With the feature optimizer alone; the maps come closer."""
    opt = {"logit": sgd(0.0), "feature": sgd(1.0)}
    method = Alignment(Graph(2, ((0, 1),)), distance="l2")
    cohort = small.cohort(((3, 4, 7), (3, 4, 5)), opt=opt, method=method)
    assert cohort.peers[1].projections and not cohort.peers[0].projections
    before = init_state(cohort, jax.random.key(0))
    step = jax.jit(functools.partial(train_step, cohort))
    after, first = step(before, small.batch())
    assert not changed(before.peers[0].params, after.peers[0].params)
    moved = changed(before.peers[1].params, after.peers[1].params)
    assert moved == {n for n in names(before.peers[1].params) if "classifier" not in n}
    for _ in range(20):
        after, last = step(after, small.batch())
    assert last[1]["loss/alignment"] < 0.8 * first[1]["loss/alignment"]
    assert last[1]["loss/alignment"] == last[1]["map_l2"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda g: DML(g, temperature=0), "method.temperature = 0: must be a number"),
        (lambda g: DML(g, second_forward=2), "method.second_forward = 2: must be True"),
        (lambda g: Alignment(g, distance="l3"), "method.distance = 'l3': .*Choose one of: l1, l2"),
        (lambda g: Alignment(g, alignment_weight=-1), "method.alignment_weight = -1: must be"),
        (lambda g: AFD(g, objective="gan"), "method.objective = 'gan': .*Choose one of: bce"),
    ],
)
def test_bad_options_of_methods_are_named(make, words):
    with pytest.raises(SettingError, match=words):
        make(Graph(2, cyclic_pairs(2)))


@pytest.mark.parametrize("second_forward", [False, True])
def test_a_twin_trains_as_if_it_were_alone(second_forward):
    """It starts from the same parameters and ends where independent training ends."""
    options = {"widths": (4, 6), "second_forward": second_forward}
    method = AFD(Graph(2, cyclic_pairs(2)), **options)
    cohort = small.cohort(UNEQUAL, method=method, alone=True)
    assert (len(cohort.peers), cohort.members) == (4, 2)
    state = init_state(cohort, jax.random.key(0))
    assert not changed(state.peers[0].params["network"], state.peers[2].params["network"])
    after, _ = update(cohort, steps=2)
    plain, _ = update(small.cohort(UNEQUAL, method=Independent(Graph(2, ()))), steps=2)
    for k in (0, 1):
        twin, alone = after.peers[2 + k], plain.peers[k]
        assert small.largest_difference(twin.params, alone.params) < 1e-5
        assert small.largest_difference(twin.statistics, alone.statistics) < 1e-5
        assert changed(after.peers[k].params["network"], twin.params["network"])


def test_second_forward_without_feature_losses_is_refused():
    method = AFD(Graph(2, cyclic_pairs(2)), adversarial_weight=0.0, second_forward=True)
    with pytest.raises(SettingError, match=r"method.second_forward = True: has no effect"):
        small.cohort(method=method)


def test_a_network_that_only_teaches_gets_no_transfer_layer():
    """Nothing would train it; the others come to its shape."""
    widths = ((3, 4, 5), (3, 4, 7), (3, 4, 6))
    chain = small.cohort(widths, method=AFD(Graph(3, ((1, 0), (0, 2))), widths=(4,)))
    assert [bool(peer.projections) for peer in chain.peers] == [True, False, True]
    assert chain.peers[2].projections["transfer"].shape == (2, 2, 7)
    with pytest.raises(SettingError, match=r"networks \[1, 2\] only teach.*need one shape"):
        small.cohort(widths, method=AFD(Graph(3, ((1, 0), (2, 0))), widths=(4,)))


def test_unconnected_pairs_have_shapes_of_their_own():
    widths = ((3, 4, 5), (3, 4, 7), (3, 4, 9), (3, 4, 9))
    graph = Graph(4, ((0, 1), (1, 0), (2, 3), (3, 2)))
    cohort = small.cohort(widths, method=AFD(graph, widths=(4,)))
    assert [bool(peer.projections) for peer in cohort.peers] == [False, True, False, False]


def test_who_trains_what_sees_through_jit_remat_scan_and_stop_gradient():
    cohort = make_cohort(
        [tiny.Wrapped(5)] * 2,
        AFD(Graph(2, cyclic_pairs(2)), widths=(4,)),
        small.optimizers(),
        image_shape=small.IMAGE_SHAPE,
        classes=5,
    )
    state = init_state(cohort, jax.random.key(0)).peers[0]
    feature, logit = (names(state.optimizers[u]) for u in ("feature", "logit"))
    for part in ("first", "rounds", "rounded"):
        assert any(part in n for n in feature), part
    assert not any("classifier" in n or "still" in n for n in feature)
    assert any("classifier" in n for n in logit) and not any("still" in n for n in logit)


def test_cycle_of_two_is_all_pairs_of_two():
    cycle, _ = update(small.cohort(method=AFD(Graph(2, cyclic_pairs(2)), widths=(4, 6))))
    pairs, _ = update(small.cohort(method=AFD(Graph(2, all_pairs(2)), widths=(4, 6))))
    assert not changed(cycle, pairs)


def test_all_pairs_of_three_owns_a_discriminator_per_source():
    method = AFD(Graph(3, all_pairs(3)), widths=(4,))
    state, metrics = update(small.cohort(((3, 4, 5),) * 3, method=method))
    assert set(state.peers[1].discriminators) == {"from_0", "from_2"}
    assert all(np.isfinite(v) for node in metrics for v in node.values())


@pytest.mark.parametrize("objective", ["bce", "hinge", "wasserstein"])
def test_other_objectives_train_the_discriminator(objective):
    """Beside networks that stand still, it comes to tell their maps apart."""
    opt = {**small.optimizers(), "logit": sgd(0.0), "feature": sgd(0.0)}
    cohort = small.cohort(objective=objective, opt=opt)
    before = init_state(cohort, jax.random.key(0))
    step = jax.jit(functools.partial(train_step, cohort))
    after, first = step(before, small.batch())
    for _ in range(10):
        after, last = step(after, small.batch())
    assert last[0]["loss/discriminator"] < first[0]["loss/discriminator"]


def test_metrics_are_what_they_say():
    cohort = small.cohort(UNEQUAL)
    state, metrics = update(cohort)
    expected = {
        "accuracy",
        "loss/cross_entropy",
        "loss/distillation",
        "loss/generator",
        "loss/discriminator",
        "gradient_norm/logit",
        "gradient_norm/feature",
        "gradient_norm/discriminator",
        "output_gradient_norm/cross_entropy",
        "output_gradient_norm/distillation",
        "output_gradient_norm/generator",
        "real_accuracy",
        "fake_accuracy",
        "map_l1",
        "map_l2",
        "map_cosine",
    }
    for node in metrics:
        assert set(node) == expected
        assert all(np.isfinite(v) and v.shape == () for v in node.values())
        assert all(v > 0 for name, v in node.items() if "norm" in name or "loss" in name)
    assert int(state.step) == 1


def test_gradient_norms_by_an_independent_path(pair):
    cohort, state, params, critics, loss = pair
    _, metrics = jax.jit(functools.partial(train_step, cohort))(state, small.batch())
    for update_name, key in (("logit", "logit"), ("feature", "feature")):
        gradient = jax.jit(jax.grad(functools.partial(loss, update_name, 0)))(params, critics)[0]
        norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gradient)))
        np.testing.assert_allclose(metrics[0][f"gradient_norm/{key}"], norm, rtol=1e-4)


def test_second_forward_sees_the_new_parameters():
    one, _ = update(small.cohort())
    two, _ = update(small.cohort(second_forward=True))
    assert changed(one.peers[0].params, two.peers[0].params)


def test_evaluation_counts_every_example_once():
    cohort = small.cohort()
    state = init_state(cohort, jax.random.key(0))
    whole = small.batch(10)
    step = jax.jit(functools.partial(eval_step, cohort))
    once = step(state, {**whole, "mask": jnp.ones(10, bool)})
    padded = {name: jnp.concatenate([x, x[:6]]) for name, x in whole.items()}
    again = step(state, {**padded, "mask": jnp.arange(16) < 10})
    assert int(once["count"]) == int(again["count"]) == 10
    assert small.largest_difference(once, again) < 1e-6

    logits = [
        peer.network.apply(
            {"params": s.params["network"], **s.statistics["network"]}, whole["image"], train=False
        ).logits
        for peer, s in zip(cohort.peers, state.peers, strict=True)
    ]
    right = [int(np.sum(np.argmax(z, 1) == whole["label"])) for z in logits]
    assert once["correct"].tolist() == right
    softmax = [np.exp(z - np.max(z, 1, keepdims=True)) for z in map(np.asarray, logits)]
    together = sum(p / p.sum(1, keepdims=True) for p in softmax)
    assert int(once["ensemble_correct"]) == np.sum(np.argmax(together, 1) == whole["label"])


def test_ensemble_is_of_the_members_without_their_twins():
    method = AFD(Graph(2, cyclic_pairs(2)), widths=(4,))
    batch = {**small.batch(10), "mask": jnp.ones(10, bool)}
    results = []
    for alone in (False, True):
        cohort = small.cohort(UNEQUAL, method=method, alone=alone)
        state, _ = update(cohort, steps=3)
        results.append(jax.jit(functools.partial(eval_step, cohort))(state, batch))
    assert results[0]["ensemble_correct"] == results[1]["ensemble_correct"]
    assert results[1]["correct"].shape == (4,)


def test_network_with_dropout_draws_anew_each_step():
    cohort = make_cohort(
        [tiny.Dropout(5)] * 2,
        Independent(Graph(2, ())),
        {"logit": sgd(0.0)},
        image_shape=small.IMAGE_SHAPE,
        classes=5,
    )
    state = init_state(cohort, jax.random.key(0))
    step = jax.jit(functools.partial(train_step, cohort))
    state, first = step(state, small.batch())
    state, second = step(state, small.batch())
    assert first[0]["loss/cross_entropy"] != second[0]["loss/cross_entropy"]
