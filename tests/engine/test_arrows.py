"""Whose parameters a loss reaches, and what each optimizer moves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax import losses
from afd_jax.engine.build import make_cohort
from afd_jax.errors import SettingError
from afd_jax.engine.forward import apply_peer
from afd_jax.graph import Graph, cyclic_pairs
from afd_jax.networks.heads import BoundHead
from afd_jax.engine.init import init_state
from afd_jax.methods import AFD, Alignment
from afd_jax.engine.optimizers import sgd
from afd_jax.engine.step import train_step
from tests import small, tiny
from tests.leaves import changed, names, nonzero

UNEQUAL = ((3, 4, 5), (3, 4, 7))


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


def test_gradient_norms_by_an_independent_path(pair):
    cohort, state, params, critics, loss = pair
    _, metrics = jax.jit(functools.partial(train_step, cohort))(state, small.batch())
    for update_name, key in (("logit", "logit"), ("feature", "feature")):
        gradient = jax.jit(jax.grad(functools.partial(loss, update_name, 0)))(params, critics)[0]
        norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gradient)))
        np.testing.assert_allclose(metrics[0][f"gradient_norm/{key}"], norm, rtol=1e-4)


def test_a_loss_that_reaches_no_parameter_is_named():
    class Deaf(AFD):
        def feature_terms(self, k, outputs, discriminators):
            terms, logged = super().feature_terms(k, outputs, discriminators)
            return jax.lax.stop_gradient(terms), logged

    method = Deaf(Graph(2, cyclic_pairs(2)), widths=(4,))
    with pytest.raises(
        SettingError, match=r"'feature_terms': its feature loss for .* no parameter"
    ):
        small.cohort(method=method)
