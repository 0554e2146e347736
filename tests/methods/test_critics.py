"""Discriminators and transfer layers: of the papers, of one's own, and where they stand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from afd_jax import losses, methods
from afd_jax.engine.cohort import Cohort
from afd_jax.engine.devices import make_devices
from afd_jax.engine.optimizers import adam
from afd_jax.engine.step import train_step
from afd_jax.errors import SettingError
from afd_jax.methods import AFD, AIKD, DML, Alignment
from afd_jax.methods.critic import OBJECTIVES, Critic, ProbabilityCritic
from afd_jax.methods.method import UPDATES, Method
from afd_jax.networks.heads import BoundHead, ProbabilityDiscriminator
from tests import small, tiny
from tests.leaves import changed, names


@pytest.mark.parametrize("loss", OBJECTIVES)
@pytest.mark.parametrize("kind", [Critic, ProbabilityCritic])
def test_generator_and_discriminator_are_opposed(kind, loss):
    """One that learns to tell two kinds of maps apart lets the generator's loss of fakes grow.

    Beside that of real ones, for some losses have no zero of their own.
    """
    critic = kind(widths=(4,), loss=loss)
    module, optimizer = critic.module(), adam(1e-2)
    shape = (16, 2, 2, 3) if kind is Critic else (16, 3)
    fake, real = 0.3 * jax.random.normal(jax.random.key(0), (2, *shape))
    real, fake = (
        jax.nn.softmax(real + jnp.broadcast_to(jnp.arange(3.0), shape)),
        jax.nn.softmax(fake),
    )
    variables = module.init(jax.random.key(1), fake, train=False)
    opt = optimizer.init(variables["params"])

    @jax.jit
    def step(variables, opt):
        def told(params):
            head = BoundHead(module, {**variables, "params": params})
            value, verdicts = critic.tell(head, real=real, fake=fake)
            kept = head.variables
            fooled = critic.fool(head, fake) - critic.fool(head, real)
            assert head.variables is kept  # the generator's loss gathers no statistics
            mean = losses.mean(value)
            return mean, (mean, losses.mean(fooled), verdicts, kept)

        gradient, (value, fooled, verdicts, new) = jax.grad(told, has_aux=True)(variables["params"])
        updates, opt = optimizer.update(gradient, opt, variables["params"])
        params = optax.apply_updates(variables["params"], updates)
        return ({**new, "params": params}, opt), (value, fooled, verdicts)

    (variables, opt), (first, fooled, _) = step(variables, opt)
    for _ in range(40):
        (variables, opt), (last, still_fooled, verdicts) = step(variables, opt)
    assert last < first and still_fooled > fooled
    right = np.mean(verdicts["real_accuracy"]) + np.mean(verdicts["fake_accuracy"])
    assert right > 1.1 or loss == "wasserstein"


def test_wasserstein_discriminator_has_a_bounded_slope():
    """At most 1, up to the error of the iteration; without spectral normalisation it is steep."""
    p, q = jax.nn.softmax(3 * jax.random.normal(jax.random.key(1), (2, 200, small.CLASSES)))
    q = jnp.sort(q, axis=1)  # so that there is something to tell

    def steepest(spectral):
        module = ProbabilityDiscriminator(spectral=spectral, sigmoid=False)
        head, optimizer = module.init(jax.random.key(0), p), adam(1e-2)

        @jax.jit
        def step(head, opt):
            def apart(params):
                bound = BoundHead(module, {**head, "params": params})
                each = losses.wasserstein_discriminator(bound(p), bound(q))
                return losses.mean(each), bound.variables

            gradient, new = jax.grad(apart, has_aux=True)(head["params"])
            updates, opt = optimizer.update(gradient, opt, head["params"])
            return {**new, "params": optax.apply_updates(head["params"], updates)}, opt

        opt = optimizer.init(head["params"])
        for _ in range(50):
            head, opt = step(head, opt)
        real, fake = (module.apply(head, x, train=False) for x in (p, q))
        return np.max(np.abs(real - fake) / np.linalg.norm(p - q, axis=1))

    assert 0.3 < steepest(spectral=True) <= 1.1
    assert steepest(spectral=False) > 2


@pytest.mark.parametrize("name", ["OwnCritic", "OwnCriticInNNX"])
def test_a_discriminator_of_ones_own_by_name(name):
    """It trains, keeps its statistics, and they are synchronised over devices."""
    method = methods.make("afd", {"critic": {"network": f"tests.tiny:{name}"}})
    cohort = small.cohort(
        make=lambda classes, widths: tiny.Tiny(classes, channels=5), method=method
    )
    assert cohort.plan.networks["a"].heads["a"]["critic_b"].name == name
    before, ends = small.begin(cohort), []
    for mode, devices in (("jit", 1), ("pmap", 2)):
        how = make_devices(mode, devices)
        step = how.compile(
            functools.partial(train_step, how.prepare(cohort.plan), detailed=False), donate=False
        )
        batch = how.put_batch(jax.device_get(small.batch()))
        after, metrics = step(how.put_state(before), batch)
        ends.append(jax.device_get((after.networks, metrics)))
    assert small.largest_difference(*ends) < 1e-4
    networks, metrics = ends[0]
    own, old = networks["a"], before.networks["a"]
    for part in ("params", "statistics"):
        heads = getattr(own, part)["heads"]["a"]["critic_b"]
        assert changed(getattr(old, part)["heads"]["a"]["critic_b"], heads) == names(heads)
    assert names(own.optimizers["discriminator"], "critic_b") and np.isfinite(
        metrics["a"]["loss/generator"]
    )


def test_a_network_that_only_teaches_gets_no_transfer_layer():
    """Nothing would train it; the others come to its shape."""
    widths = ((3, 4, 5), (3, 4, 7), (3, 4, 6))
    chain = small.cohort(widths, graph=[("b", "a"), ("a", "c")]).plan
    heads = {name: {**network.heads.get(name, {})} for name, network in chain.networks.items()}
    assert {name: sorted(own) for name, own in heads.items()} == {
        "a": ["critic_b", "transfer"],
        "b": [],
        "c": ["critic_a", "transfer"],
    }
    assert heads["c"]["transfer"].module.shape == (2, 2, 7)
    with pytest.raises(SettingError, match=r"networks b, c only teach.*need one shape"):
        small.cohort(widths, graph=[("b", "a"), ("c", "a")])


def test_unconnected_pairs_have_shapes_of_their_own():
    widths = ((3, 4, 5), (3, 4, 7), (3, 4, 9), (3, 4, 9))
    pairs = [("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")]
    networks = small.cohort(widths, graph=pairs).plan.networks
    assert [n for n in networks if "transfer" in networks[n].heads[n]] == ["b"]


def test_all_pairs_of_three_owns_a_discriminator_per_source_and_the_mean_over_them():
    cohort = small.cohort(((3, 4, 5),) * 3, graph="all_pairs")
    state = small.begin(cohort)
    assert set(state.networks["b"].params["heads"]["b"]) == {"critic_a", "critic_c"}
    three = cohort.losses(state, small.batch())["b"]
    each = []
    for source in "ac":
        one = small.cohort(((3, 4, 5),) * 3, graph=[(source, "b")])
        each.append(one.losses(small.begin(one), small.batch())["b"])
    for kind in (*UPDATES, "metrics"):
        for name, value in getattr(three, kind).items():
            mean = sum(getattr(own, kind)[name] for own in each) / 2
            np.testing.assert_allclose(value, mean, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DML(temperature=0), "method.temperature = 0: must be a number"),
        (lambda: Alignment(distance="l3"), "method.distance = 'l3': .*Choose one of: l1, l2"),
        (lambda: Alignment(alignment_weight=-1), "method.alignment_weight = -1: must be"),
        (lambda: Critic(loss="gan"), "method.critic.loss = 'gan': .*Choose one of: bce"),
        (lambda: Critic(widths=()), r"method.critic.widths = \(\): must be a list"),
        (
            lambda: AFD(critic=3),
            "method.critic = 3: must have only the options network, loss, wid",
        ),
        (lambda: AFD(critic={"width": 3}), "method.critic.width = 3: .*did you mean 'widths'"),
        (lambda: methods.make("afd", {"temprature": 1.0}), "did you mean 'temperature'"),
        (lambda: methods.make("adf", {}), "method.name = 'adf': did you mean 'afd'"),
        (lambda: methods.find("tests.tiny:Tiny"), "must be a subclass of afd_jax.methods.Method"),
        (lambda: methods.find("tests.tiny:None"), "method.name = 'tests.tiny:None': could not"),
        (
            lambda: small.cohort(method=AFD(critic=Critic(network="tests.tiny:Nothing"))),
            "method.critic.network = 'tests.tiny:Nothing': could not import it",
        ),
        (
            lambda: small.cohort(method=AFD(critic=Critic(network="tests.tiny:Tiny"))),
            "method.critic.network = 'tests.tiny:Tiny': could not build it from nothing",
        ),
    ],
)
def test_bad_options_are_named(make, words):
    with pytest.raises(SettingError, match=words):
        make()


def test_methods_by_name_with_blocks_of_options():
    """In a mapping or as an object; a list becomes a tuple; one of one's own by its place."""
    given = {"temperature": 2, "critic": {"widths": [4, 6], "loss": "hinge"}}
    assert methods.make("afd", given) == AFD(2, critic=Critic(widths=(4, 6), loss="hinge"))
    assert isinstance(methods.make("ai_kd", {"critic": {"widths": [3]}}).critic, ProbabilityCritic)
    assert AIKD().critic == ProbabilityCritic()
    for name in methods.NAMES:
        assert (
            issubclass(methods.find(name), Method)
            and methods.make(name, {}) == methods.find(name)()
        )
    assert methods.find("afd_jax.methods.dml:DML") is DML


OWN_HEADS = {  # option, name of the head
    "afd": ("transfer", "transfer"),
    "alignment": ("transfer", "transfer"),
    "fitnet": ("regressor", "from_teacher"),
    "feed": ("transformation", "from_teacher"),
    "ft": ("translator", "from_teacher"),
}


@pytest.mark.parametrize("name", OWN_HEADS)
def test_other_heads_of_ones_own_by_name(name):
    option, head = OWN_HEADS[name]
    own = "OwnTransfer" if option in ("transfer", "regressor") else "OwnTransformation"
    method = methods.make(name, {option: f"tests.tiny:{own}"})
    student, teacher = tiny.Stages(5, widths=(3, 4, 7)), tiny.Stages(5, widths=(4, 5, 6))
    taught = Cohort({"student": student}, method, teachers={"teacher": teacher}, **small.SHAPES)
    made = taught.plan.networks["student"].heads["student"][head].module
    assert type(made).__name__ == own
    plain = Cohort(
        {"student": student}, methods.make(name, {}), teachers={"teacher": teacher}, **small.SHAPES
    )
    assert type(plain.plan.networks["student"].heads["student"][head].module).__name__ != own
    with pytest.raises(SettingError, match=f"method.{option} = 'conv': must be 'convolutional'"):
        methods.make(name, {option: "conv"})
