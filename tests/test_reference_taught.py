"""Updates against PyTorch, in float64: with frozen teachers, and of self-distillation.

The numbers come from experiments/reference/taught.py.
"""

import functools
import json
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from afd_jax import losses
from afd_jax.build import make_cohort
from afd_jax.cohort import init_state, state_shapes
from afd_jax.heads import BoundHead, ProbabilityDiscriminator
from afd_jax.methods import METHODS
from afd_jax.networks import CifarResNet
from afd_jax.optim import adam
from afd_jax.step import train_step
from tests import small
from tests.test_reference import FOLDER, ROLES

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
    case, arrays = CASES[name], read(name)
    cohort = cohort_of(case)
    state = state_before(cohort, arrays)
    step = jax.jit(functools.partial(train_step, cohort))
    for i in range(2):
        state, metrics = step(state, batch_of(arrays, i))
        ours = {
            f"losses/{k}/{term.removeprefix('loss/')}": value
            for k, node in enumerate(metrics)
            for term, value in node.items()
            if term.startswith("loss/")
        }
        assert set(ours) == {n for n in arrays if n.startswith("losses/")}
        for term, value in ours.items():
            np.testing.assert_allclose(value, arrays[term][i], rtol=1e-6, err_msg=term)

    used = set()
    for n, leaf in named(state):
        if f"after/{n}" in arrays:
            used.add(f"after/{n}")
            assert leaf.dtype == jnp.float64, n
            np.testing.assert_allclose(
                leaf, arrays[f"after/{n}"], rtol=1e-6, atol=case.atol, err_msg=n
            )
        else:  # bit for bit: a frozen teacher, and what was trained on top of it
            assert int(n.split("/")[1]) in cohort.teachers, n
            np.testing.assert_array_equal(leaf, arrays[f"before/{n}"], err_msg=n)
    assert used == {n for n in arrays if n.startswith("after/")}
    if "predictions" in arrays:
        memory = state.memory["predictions"]
        np.testing.assert_allclose(memory, arrays["predictions"], rtol=1e-5, atol=1e-7)


def test_teachers_start_as_given(double):
    """With the layers that were trained on top of them."""
    cohort, arrays = cohort_of(CASES["ft"]), read("ft")
    state = init_state(cohort, jax.random.key(0), [variables_of(arrays, 1)])
    given = 0
    for n, leaf in named(state):
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


def read(name):
    """The arrays of a case, cut out of one vector."""
    arrays, start = {}, 0
    with np.load(FOLDER / f"update_{name}.npz") as file:
        values = file["values"]
        for key, shape in json.loads(str(file["index"])).items():
            end = start + int(np.prod(shape))
            arrays[key], start = values[start:end].reshape(shape), end
    assert start == len(values)
    return arrays


def cohort_of(case):
    make = functools.partial(CifarResNet, small.CLASSES, depth=8, stem_width=3)
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


def batch_of(arrays, i):
    index = arrays["indices"][i] if "indices" in arrays else np.arange(6)
    batch = {
        "image": jnp.asarray(arrays["images"][i]),
        "label": jnp.asarray(arrays["labels"][i], jnp.int32),
        "index": jnp.asarray(index, jnp.int32),
    }
    if "partner_images" in arrays:
        batch["partner_image"] = jnp.asarray(arrays["partner_images"][i])
        batch["partner"] = batch["index"]
    return batch


def named(state):
    """Name and value of every floating-point number that belongs to a network."""
    for path, leaf in jax.tree.leaves_with_path(state.peers):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            yield reference_name(path), leaf


def reference_name(path):
    """The name of a leaf of the networks' states in the PyTorch script's files."""
    name = jax.tree_util.keystr(path, simple=True, separator="/").replace("projections/", "")
    if match := re.fullmatch(r"(\d)/discriminators/\w+/(params|batch_stats)/(.*)", name):
        kind = "params" if match[2] == "params" else "statistics"
        return f"{kind}/{match[1]}/discriminator/{match[3]}"
    if match := re.fullmatch(r"(\d)/optimizers/(\w+)/.*?(trace|mu|nu)/(.*)", name):
        update, role = match[2], ROLES[match[3]]
        rest = re.sub(r"^\w+", update, match[4]) if update == "discriminator" else match[4]
        return f"{update}/{role}/{match[1]}/{rest}"
    peer, kind, rest = name.replace("/batch_stats", "").split("/", 2)
    return f"{kind}/{peer}/{rest}"


def state_before(cohort, arrays):
    """The start in the file; what it does not have is zero."""
    used = set()

    def load(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros(leaf.shape, leaf.dtype)
        name = f"before/{reference_name(path)}"
        if "/exp_avg" in name or "/momentum_buffer" in name:
            return jnp.zeros(leaf.shape, jnp.float64)
        assert arrays[name].shape == leaf.shape, name
        used.add(name)
        return jnp.asarray(arrays[name])

    shapes = state_shapes(cohort)  # quicker than compiling `init_state`
    peers = jax.tree.map_with_path(load, shapes.peers)
    assert used == {name for name in arrays if name.startswith("before/")}
    rest = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes.replace(peers=()))
    return rest.replace(peers=peers)


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
