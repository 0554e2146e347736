"""Updates against PyTorch, in float64: with frozen teachers, and of self-distillation.

The numbers come from experiments/reference/taught.py.
"""

import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from afd_jax import losses
from afd_jax.engine.build import make_cohort
from afd_jax.networks.heads import BoundHead, ProbabilityDiscriminator
from afd_jax.engine.init import init_state
from afd_jax.methods import METHODS
from afd_jax.engine.optimizers import adam
from tests import pytorch, small, tiny

STUDENT, TEACHER, OTHER = (3, 4, 5), (4, 5, 6), (2, 4, 7)
KD = {"temperature": 4.0, "label_weight": 0.1, "distillation_weight": 0.9}
BAN = {"temperature": 1.0, "label_weight": 1.0, "distillation_weight": 1.0}
WEIGHTS = {
    "temperature": 2.0,
    "distillation_weight": 0.7,
    "progressive_weight": 0.6,
    "adversarial_weight": 0.4,
}
SMALL = {"widths": (4, 6)}


class Case(NamedTuple):
    method: str
    teachers: tuple = (TEACHER,)
    options: dict = {}  # noqa: RUF012
    atol: float = 1e-12  # single precision is enough for what a method remembers


CASES = {
    "kd": Case("kd"),
    "kd_two": Case("kd", (TEACHER, OTHER)),
    "ban": Case("kd", (STUDENT,), BAN),
    "fitnet": Case("fitnet", (TEACHER, OTHER), KD),
    "at": Case("at"),
    "ft": Case("ft"),
    "paraphraser": Case("paraphraser"),
    "feed_mean": Case("feed", (TEACHER, OTHER)),
    "feed_sum": Case("feed", (TEACHER, OTHER), {"norm": "sum", "hint_weight": 0.3}),
    "ai_kd": Case("ai_kd", (STUDENT,), SMALL | WEIGHTS),
    "ai_kd_bce": Case("ai_kd", (STUDENT,), SMALL | {"objective": "bce"}),
    "ps_kd": Case("ps_kd", (), atol=1e-7),
    "cs_kd": Case("cs_kd", ()),
    "tf_kd_virtual": Case("tf_kd", (), atol=1e-7),
    "tf_kd": Case(
        "tf_kd",
        (STUDENT,),
        {"label_weight": 0.05, "distillation_weight": 0.475, "temperature": 6.0},
    ),
    "label_smoothing": Case("independent", (), {"label_smoothing": 0.1}),
    "afd_offline": Case("afd", options=SMALL),
    "alignment_offline": Case("alignment"),
}


@pytest.mark.parametrize("name", CASES)
def test_two_updates_equal_pytorch(name, double):
    case, arrays = CASES[name], pytorch.read(name)
    state = pytorch.require_equal_updates(cohort_of(case), arrays, atol=case.atol)
    if "predictions" in arrays:
        memory = state.memory["predictions"]
        np.testing.assert_allclose(memory, arrays["predictions"], rtol=1e-5, atol=1e-7)


def test_teachers_start_as_given(double):
    """With the layers that were trained on top of them."""
    cohort, arrays = cohort_of(CASES["ft"]), pytorch.read("ft")
    state = init_state(cohort, jax.random.key(0), [variables_of(arrays, 1)])
    given = 0
    for n, leaf in pytorch.named(state):
        if n.split("/")[1] == "1":
            given += 1
            np.testing.assert_array_equal(leaf, arrays[f"before/{n}"].astype(leaf.dtype), n)
    assert given == sum("/1/" in n for n in arrays if n.startswith("before/"))


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


def cohort_of(case):
    make = functools.partial(tiny.Stages, small.CLASSES)
    students = [] if case.method == "paraphraser" else ["student"]
    method = METHODS[case.method]
    return make_cohort(
        [make(widths=STUDENT) for _ in students],
        method.from_settings("own", students, case.options, teachers=len(case.teachers)),
        small.optimizers(),
        image_shape=small.IMAGE_SHAPE,
        classes=small.CLASSES,
        teachers=[make(widths=widths) for widths in case.teachers],
        total_steps=2,
        steps_per_epoch=1,
        examples=8,
    )


def variables_of(arrays, p):
    """A teacher's, nested, with the layers on top of it."""
    variables = {"network": {}, "encoder": {}, "decoder": {}}
    for name, value in arrays.items():
        if match := re.fullmatch(rf"before/(params|statistics)/{p}/(\w+)/(.*)/(\w+)", name):
            kind = "params" if match[1] == "params" else "batch_stats"
            place = variables[match[2]].setdefault(kind, {})
            for part in match[3].split("/"):
                place = place.setdefault(part, {})
            place[match[4]] = value
    network = variables.pop("network")
    heads = {name: layers for name, layers in variables.items() if layers}
    return {**network, "heads": heads} if heads else network
