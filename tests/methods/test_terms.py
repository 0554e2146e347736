"""What a method of one's own can get wrong, found before anything is compiled."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax.engine.cohort import Cohort
from afd_jax.errors import SettingError
from afd_jax.methods import AFD, AIKD, FT, PSKD, Method, Terms, options
from tests import small, tiny


@dataclasses.dataclass(frozen=True)
class Own(Method):
    """Returns what it is told to."""

    terms: object = None

    def losses(self, own, sources, batch):
        return self.terms(own)


def per_example(own):
    return jnp.mean(own.logits, axis=1)


def undecorated():
    class Forgotten(Method):
        weight: float = options.number(1.0)

    return Forgotten()


def cohort(method=None, **more):
    return Cohort([tiny.Tiny(5)], method or AFD(), graph="none", **{**small.SHAPES, **more})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: cohort(Own(lambda own: Terms(logit={"x": own.logits}))),
            r"method = 'x': the logit loss of Tiny must have one value per example, \[batch\], not",
        ),
        (
            lambda: cohort(Own(lambda own: Terms(logit={"x": jnp.mean(own.logits)}))),
            r"method = 'x': the logit loss of Tiny must have one value per example",
        ),
        (
            lambda: cohort(
                Own(lambda own: Terms(logit={"x": per_example(own)}, feature={"x": own.map[:, 0]}))
            ),
            "method = 'x': stands in two updates of Tiny",
        ),
        (
            lambda: Terms.sum([{"x": 1}, Terms()]),
            "method = 'dict': node, edge and losses must return Terms",
        ),
        (undecorated, "weight = .*: is no option: decorate Forgotten with @dataclasses.dataclass"),
        (
            lambda: Cohort([tiny.Tiny(5)], AIKD(), teachers=[tiny.Tiny(5)], **small.SHAPES),
            "steps_per_epoch = None: AIKD keeps the network of the last epoch",
        ),
        (
            lambda: cohort(PSKD(), total_steps=2, steps_per_epoch=1),
            "examples = None: say how many the training set has",
        ),
        (
            lambda: Cohort([tiny.Tiny(5)], FT(), teachers=[tiny.Tiny(5)], **small.SHAPES).init(
                jax.random.key(0)
            ),
            "method = 'FT': trains on its teachers before the first step",
        ),
        (lambda: cohort(total_step=3), "total_step = 3: unknown; did you mean 'total_steps'"),
        (lambda: cohort(second_forward=2), "second_forward = 2: must be True or False"),
        (lambda: cohort().graph["Tyni"], "node = 'Tyni': Choose one of: Tiny"),
    ],
)
def test_what_cannot_work_is_named(make, words):
    with pytest.raises(SettingError, match=words):
        make()


def test_batches_are_checked_before_anything_is_compiled():
    plain = cohort()
    state, batch = small.begin(plain), small.batch()
    with pytest.raises(SettingError, match=r"batch.image = \(16, 4, 4, 2\): must be \[batch, 8"):
        plain.step(state, {**batch, "image": batch["image"][:, :4, :4]})
    with pytest.raises(
        SettingError, match=r'batch.label = None: give "label" in the batch; it has'
    ):
        plain.step(state, {"image": batch["image"]})


def test_parts_of_a_cohort_can_be_differentiated_by_others():
    """Inside somebody's own grad or jit."""
    plain = cohort()
    state, batch = small.begin(plain), small.batch()

    def loss(state):
        return jnp.mean(plain.losses(state, batch)["Tiny"].logit["cross_entropy"])

    gradient = jax.jit(jax.grad(loss, allow_int=True))(state)
    ours = plain.gradients(state, batch)["Tiny"]["logit"]["network"]
    theirs = gradient.networks["Tiny"].params["network"]
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_critic_may_be_a_module():
    from afd_jax.methods.critic import Critic

    method = AFD(critic=Critic(network=tiny.OwnCritic()))
    pair = Cohort([tiny.Tiny(5)] * 2, method, **small.SHAPES)
    heads = pair.plan.networks["Tiny"].heads["Tiny"]
    assert heads["critic_Tiny_1"].module == tiny.OwnCritic()


def test_old_keys_and_numbers_make_a_state():
    plain = cohort()
    new, old = (plain.init(key) for key in (jax.random.key(3), jax.random.PRNGKey(3)))
    jax.tree.map(np.testing.assert_array_equal, new, old)
