"""Whose parameters a loss reaches, and what each optimizer moves."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax import methods
from afd_jax.engine import forward
from afd_jax.engine.inputs import keys_of, loss_key
from afd_jax.errors import SettingError
from afd_jax.methods import ONE, Alignment, Independent, soft
from afd_jax.methods.afd import AFD
from afd_jax.methods.method import UPDATES, Terms, View
from tests import small, tiny
from tests.leaves import changed, names, nonzero

LOGIT, FEATURE, DISCRIMINATOR = UPDATES


@dataclasses.dataclass(frozen=True)
class Leaky(AFD):
    """Reaches in every update for all that it is given, as often as it can."""

    def edge(self, own, source, batch):
        def squares(x):
            return jnp.mean(jnp.square(x).reshape(len(x), -1), axis=1)

        critics = [head for view in (own, source) for n, head in view.heads.items() if "crit" in n]
        theirs = source.heads.get("transfer", lambda x: x)
        maps = (own.map, source.map, theirs(source.features))
        values = [squares(x) for x in (own.logits, source.logits, *maps)]
        values += [critic(x, keep_statistics=False) for critic in critics for x in maps]
        everything = sum(n * value for n, value in enumerate(values, 1))
        told, _ = self.critic.tell(
            own.heads[f"critic_{source.name}"], real=source.map, fake=own.map
        )
        return Terms(
            logit={"reach": everything},
            feature={"reach_maps": everything - squares(own.logits)},
            discriminator={"reach_all": everything + told},
        )


def own_gradient(plan, state, batch, name, update):
    """By another path than the engine's: of a network's losses, where sources are plain numbers."""
    node, network, own = name, plan.networks[name], state.networks[name]
    constants = {}
    for other, module in plan.networks.items():
        them = state.networks[other]
        run = functools.partial(forward.apply, plan, module, them.params, them.statistics)
        outputs = run(batch["image"], {})[0][other]
        heads = forward.bind(module, them.params["heads"], them.statistics["heads"])
        entered = functools.partial(entered_after, module.module.module, them.variables)
        constants[other] = View(other, "student", outputs, heads.get(other, {}), run_after=entered)

    def total(params):
        outputs = constants[node].outputs
        if update != DISCRIMINATOR:
            images, statistics = batch["image"], own.statistics
            outputs = forward.apply(plan, network, params, statistics, images, {})[0][node]
        heads = forward.bind(network, params["heads"], own.statistics["heads"])
        sources = tuple(constants[source] for source in plan.graph.sources(node))
        view = View(node, "student", outputs, heads.get(node, {}), sources)
        key = loss_key(keys_of(state)[0])
        seen = plan.seen(batch, state.step, state.memory, key=key)
        terms = plan.method.losses(view, sources, seen)
        return sum(jnp.mean(value) for value in getattr(terms, update).values())

    gradient = jax.grad(total)(own.params)
    return jax.tree.map_with_path(lambda p, g: g if of_update(update, p) else 0 * g, gradient)


def entered_after(module, variables, maps, stages):
    return module.apply(variables, maps, train=False, stages=stages, method="after")


def of_update(update, path):
    """The rule, by names: a discriminator belongs to its own update."""
    text = jax.tree_util.keystr(path, simple=True, separator="/")
    return ("critic" in text) == (update == DISCRIMINATOR)


@pytest.mark.parametrize("kind", [AFD, Leaky])
def test_each_update_moves_what_is_its_own_by_its_own_gradient(kind):
    """One optimizer at a time has a rate above zero; one that reaches for more gets nothing."""
    method = kind(critic=small.afd().critic)
    cohort = small.cohort(small.UNEQUAL, method=method, opt=small.adjustable())
    plan, before, batch = cohort.plan, small.begin(cohort), small.batch()
    found = cohort.gradients(before, batch)
    step = small.step_of(cohort)
    expected = jax.jit(
        lambda state: {
            name: {u: own_gradient(plan, state, batch, name, u) for u in UPDATES} for name in "ab"
        }
    )(before)
    for update in UPDATES:
        after, metrics = step(small.with_rates(before, **{update: 0.1}), batch)
        for name in "ab":
            own, new = before.networks[name].params, after.networks[name].params
            gradient = expected[name][update]
            assert small.largest_difference(found[name][update], gradient) < 1e-4
            stepped = jax.tree.map(lambda x, g: x - 0.1 * g, own, gradient)
            assert small.largest_difference(new, stepped) < 1e-5
            norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gradient)))
            np.testing.assert_allclose(metrics[name][f"gradient_norm/{update}"], norm, rtol=1e-4)

            if update == DISCRIMINATOR:
                wanted = names(own, "critic")
            else:
                wanted = names(own) - names(own, "critic")
            if update == FEATURE:
                wanted -= names(own, "classifier")
            if update == LOGIT and kind is AFD:
                wanted -= names(own, "transfer")
            assert nonzero(found[name][update]) == wanted != set()
            assert changed(own, new) == wanted, (name, update)

    # All at once: every gradient is taken at the same parameters.
    after, _ = step(small.with_rates(before, **dict.fromkeys(UPDATES, 0.1)), batch)
    for name in "ab":
        stepped = before.networks[name].params
        for update in UPDATES:
            stepped = jax.tree.map(lambda x, g: x - 0.1 * g, stepped, expected[name][update])
        assert small.largest_difference(after.networks[name].params, stepped) < 1e-5


TAUGHT = ("sp", "rkd", "pkt", "vid", "reviewkd", "block_kd", "mgd", "crd")


@pytest.mark.parametrize("name", TAUGHT)
def test_a_teacher_of_maps_or_relations_is_a_constant(name):
    """The gradient is that of the student's losses where teachers are plain numbers."""
    options = {"ramp_up_epochs": 0} if name == "reviewkd" else {}  # its weight begins at 0
    cohort = small.cohort(
        [(3, 4, 5)],
        method=methods.make(name, options),
        teachers={"b": tiny.Stages(5, widths=(4, 3, 6))},
        total_steps=4,
        steps_per_epoch=2,
        examples=16,
    )
    plan, before, batch = cohort.plan, small.begin(cohort), small.batch()
    found = cohort.gradients(before, batch)
    assert [*found["a"]] == [LOGIT] and not plan.networks["b"].trains
    expected = jax.jit(lambda s: own_gradient(plan, s, batch, "a", LOGIT))(before)
    assert small.largest_difference(found["a"][LOGIT], expected) < 1e-4
    assert nonzero(found["a"][LOGIT]) == names(before.networks["a"].params)


@pytest.mark.parametrize(
    ("name", "options"), [("dcm", {"depth": 2}), ("mcl", {"size": 4}), ("mgd", {})]
)
def test_peers_that_look_at_each_others_maps_are_constants(name, options):
    """Likewise for both of a pair, heads of the other among the plain numbers."""
    cohort = small.cohort(small.UNEQUAL, method=methods.make(name, options), total_steps=4)
    plan, before, batch = cohort.plan, small.begin(cohort), small.batch()
    found = cohort.gradients(before, batch)
    expected = jax.jit(lambda s: {n: own_gradient(plan, s, batch, n, LOGIT) for n in "ab"})(before)
    for own in "ab":
        assert [*found[own]] == [LOGIT]
        assert small.largest_difference(found[own][LOGIT], expected[own]) < 1e-4
        assert nonzero(found[own][LOGIT]) == names(before.networks[own].params)


def test_masks_know_nothing_of_what_others_lose():
    """A source that only teaches is a constant; so its maps train nothing of its own."""
    for method in (small.afd(), Leaky(critic=small.afd().critic)):
        cohort = small.cohort(small.UNEQUAL, method=method, graph=[("a", "b")])
        assert [*cohort.plan.networks["a"].trains] == [LOGIT]
        assert [*cohort.plan.networks["b"].trains] == [*UPDATES]
        assert not cohort.plan.networks["a"].heads


@dataclasses.dataclass(frozen=True)
class LeakyBranches(ONE):
    """Takes no constant for its target."""

    def edge(self, own, source, batch):
        return soft.rising(self, own, source.logits, batch, constant=False)


def test_another_branch_of_the_own_network_is_a_constant_too():
    cohort = small.cohort([(3, 4, 5)], method=LeakyBranches(), total_steps=4)
    plan, state = cohort.plan, small.begin(cohort)
    network, own = plan.networks["a"], state.networks["a"]

    def divergence(params):
        outputs, _ = forward.apply(
            plan, network, params, own.statistics, small.batch()["image"], {}
        )
        seen = plan.seen(small.batch(), state.step, {})
        terms = forward.terms_of(plan, network, outputs, {}, {}, {}, seen)
        return jnp.sum(terms["branch 1"].logit["distillation"])

    gradient = jax.jit(jax.grad(divergence))(own.params)["network"]
    reached = {part for part, tree in gradient.items() if nonzero(tree)}
    assert reached == {"shared", "branch1"}


def test_optimizers_leave_the_rest_alone_even_by_weight_decay():
    cohort = small.cohort(small.UNEQUAL)
    state = small.begin(cohort).networks["b"]
    feature, logit, critic = (names(state.optimizers[u]) for u in (FEATURE, LOGIT, DISCRIMINATOR))
    assert not any("classifier" in name or "critic" in name for name in feature)
    assert any("heads/b/transfer" in name for name in feature)
    assert any("classifier" in name for name in logit)
    assert not any("transfer" in name or "critic" in name for name in logit)
    assert critic and all("critic_a" in name or "count" in name for name in critic)


def test_alignment_moves_extractor_and_transfer_only():
    """With the feature optimizer alone; the maps come closer."""
    cohort = small.cohort(
        ((3, 4, 7), (3, 4, 5)),
        opt=small.adjustable(),
        method=Alignment(distance="l2"),
        graph=[("a", "b")],
    )
    networks = cohort.plan.networks
    assert [*networks["b"].heads] == ["b"] and not networks["a"].heads
    before = small.with_rates(small.begin(cohort), feature=1.0)
    step = small.step_of(cohort, detailed=False)
    after, first = step(before, small.batch())
    assert not changed(before.networks["a"].params, after.networks["a"].params)
    params = before.networks["b"].params
    assert changed(params, after.networks["b"].params) == names(params) - names(
        params, "classifier"
    )
    for _ in range(20):
        after, last = step(after, small.batch())
    assert last["b"]["loss/alignment"] < 0.8 * first["b"]["loss/alignment"]
    assert last["b"]["loss/alignment"] == last["b"]["map_l2"]


def moved(cohort, name):
    """By update, the names of the parameters that it moves."""
    return {update: nonzero(mask) for update, mask in cohort.plan.networks[name].trains.items()}


def test_who_trains_what_sees_through_jit_remat_scan_and_stop_gradient():
    """In Linen; and an NNX network beside it."""
    networks = {"a": tiny.Wrapped(5), "b": functools.partial(tiny.InNNX, 5)}
    cohort = small.Cohort(networks, small.afd(), **small.SHAPES, optimizers=small.optimizers())
    linen, nnx = moved(cohort, "a"), moved(cohort, "b")
    for part in ("first", "second", "rounds", "rounded"):
        assert any(part in n for n in linen[FEATURE]), part
    assert not any("classifier" in n or "still" in n for n in linen[FEATURE])
    assert any("classifier" in n for n in linen[LOGIT])
    assert not any("still" in n for n in linen[LOGIT])
    network = {f"network/{n}" for n in ("conv/kernel", "norm/scale", "norm/bias")}
    assert nnx[FEATURE] == network
    assert nnx[LOGIT] == network | {"network/classifier/kernel", "network/classifier/bias"}
    critics = cohort.plan.networks["b"].trains[DISCRIMINATOR]["heads"]["b"]["critic_a"]
    assert all(jax.tree.leaves(critics)) and len(nnx[DISCRIMINATOR]) == len(
        jax.tree.leaves(critics)
    )


def test_a_loss_that_reaches_no_parameter_is_named():
    class Deaf(AFD):
        def edge(self, own, source, batch):
            terms = super().edge(own, source, batch)
            return terms.replace(feature=jax.lax.stop_gradient(terms.feature))

    with pytest.raises(SettingError, match=r"method = 'generator': its feature loss for a depends"):
        small.cohort(method=Deaf(critic=small.afd().critic))


def test_a_head_that_no_loss_calls_is_named():
    class Idle(Independent):
        def heads(self, own):
            return {"spare": tiny.OwnCritic()}

    with pytest.raises(SettingError, match=r"method.heads = 'spare': is declared for a, but no"):
        small.cohort(method=Idle())
