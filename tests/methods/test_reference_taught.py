"""Updates against PyTorch, in float64: with frozen teachers, and of self-distillation.

The numbers come from taught.py and features.py in experiments/reference.
"""

import functools
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax import methods
from afd_jax.methods import crd, mgd, paraphraser
from afd_jax.networks.functional import functional, run
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
COPY = {"label_weight": 0.05, "distillation_weight": 0.475, "temperature": 6.0}


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
    "feed_mean": Case("feed", (TEACHER, OTHER)),
    "feed_sum": Case("feed", (TEACHER, OTHER), {"norm": "sum", "hint_weight": 0.3}),
    "sp": Case("sp", (TEACHER, OTHER)),
    "rkd": Case("rkd"),
    "pkt": Case("pkt"),
    "vid": Case("vid", (TEACHER, OTHER), KD),
    "reviewkd": Case("reviewkd", (TEACHER, OTHER)),
    "mgd": Case("mgd", (TEACHER, (2, 4, 5)), {"hint_weight": 0.02}),
    "crd": Case("crd", options={"negatives": 5, "size": 4}),
    "block_kd": Case("block_kd", (TEACHER, OTHER)),
    "ai_kd": Case("ai_kd", (STUDENT,), {"critic": {"widths": (4, 6)}, **WEIGHTS}),
    "ai_kd_bce": Case("ai_kd", (STUDENT,), {"critic": {"widths": [4, 6], "loss": "bce"}}),
    "ps_kd": Case("ps_kd", (), atol=1e-7),
    "cs_kd": Case("cs_kd", ()),
    "tf_kd_virtual": Case("tf_kd", (), atol=1e-7),
    "tf_kd": Case("tf_kd", (STUDENT,), COPY),
    "label_smoothing": Case("independent", (), {"label_smoothing": 0.1}),
    "afd_offline": Case("afd", options={"critic": {"widths": (4, 6)}}),
    "alignment_offline": Case("alignment"),
}


def cohort_of(case):
    teachers = {"teacher": case.teachers[:1], "teacher_1": case.teachers[1:]}
    return small.cohort(
        [STUDENT],
        method=methods.make(case.method, case.options),
        teachers={
            n: tiny.Stages(small.CLASSES, widths=w) for n, (*own,) in teachers.items() for w in own
        },
        total_steps=2,
        steps_per_epoch=1,
        examples=8,
    )


@pytest.mark.parametrize("name", CASES)
def test_two_updates_equal_pytorch(name, double, monkeypatch):
    case, arrays = CASES[name], pytorch.read(name)
    if "kept" in arrays:  # what is drawn in a run stands in the file
        kept = jnp.asarray(arrays["kept"])

        def of_file(batch, edge, channels, share):
            return kept[(2 * batch.progress).astype(int), batch.place, :channels]

        monkeypatch.setattr(mgd, "_kept", of_file)
    if "others" in arrays:
        others = jnp.asarray(arrays["others"], jnp.int32)

        def chosen(batch, name, count, examples):
            drawn = others[(2 * batch.progress).astype(int), batch.place]
            return jnp.concatenate([batch.index[:, None], drawn], axis=1)

        monkeypatch.setattr(crd, "_chosen", chosen)
    cohort = cohort_of(case)
    if name == "cs_kd":
        arrays = without_the_partner(arrays)
    state = pytorch.require_equal_updates(cohort.plan, arrays, atol=case.atol)
    if "predictions" in arrays:
        ours, theirs = state.memory["a"], arrays["predictions"][0]
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    if case.method == "crd":
        for side, own in state.memory["a"].items():
            np.testing.assert_allclose(own["bank"], arrays[f"bank_{side}"], rtol=1e-6, atol=1e-12)
    if case.method == "ft":  # the encoder on top of the teacher is trained beforehand
        assert not cohort.plan.networks["teacher"].trains


def without_the_partner(arrays):
    """The file's second network is a copy of the first that sees the partners; we have none.

    Its parameters are the first one's; the statistics that it gathers are in no file of ours.
    """
    copies = {name for name in arrays if re.match(r"(before|after)/\w+/1/", name)}
    assert len(copies) == 2 * 17
    for name in copies:
        if "/params/1/" in name:
            np.testing.assert_array_equal(arrays[name], arrays[name.replace("/1/", "/0/")])
    return {name: value for name, value in arrays.items() if name not in copies}


def test_two_updates_of_the_paraphraser_equal_pytorch(double):
    """On the maps of a frozen teacher, in evaluation."""
    arrays = pytorch.read("paraphraser")
    teacher = functional(tiny.Stages(small.CLASSES, widths=TEACHER))
    variables = {
        kind: nested(arrays, f"before/{name}/0/network/")
        for kind, name in (("params", "params"), ("batch_stats", "statistics"))
    }
    parts = ("encoder", "decoder")
    params = tuple(nested(arrays, f"before/params/0/{part}/") for part in parts)
    shape = jax.ShapeDtypeStruct((6, 2, 2, TEACHER[2]), jnp.float64)
    halves = (paraphraser.encoder(shape, 0.5), paraphraser.decoder(TEACHER[2], 3))
    optimizer = small.optimizers()["logit"]
    state, maps = optimizer.init(params), jax.jit(functools.partial(run, teacher, train=False))
    step = jax.jit(functools.partial(paraphraser.update, halves, optimizer))
    for i in range(2):
        outputs, _ = maps(variables, arrays["images"][i], {})
        params, state, loss = step(params, state, outputs.features)
        (term,) = (name for name in arrays if name.startswith("losses/"))
        np.testing.assert_allclose(loss, arrays[term][i], rtol=1e-6)
    momentum = state[1].trace
    for kind, found in (("params", params), ("logit/momentum_buffer", momentum)):
        for part, own in zip(parts, found, strict=True):
            expected = nested(arrays, f"after/{kind}/0/{part}/")
            jax.tree.map(
                functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-12), own, expected
            )
    others = {n for n in arrays if n.startswith("after/") and "coder" not in n}
    assert all(np.array_equal(arrays[n], arrays[n.replace("after", "before")]) for n in others)


def nested(arrays, prefix):
    """What begins with the prefix, as a tree."""
    tree = {}
    for name, value in arrays.items():
        if name.startswith(prefix):
            *parents, last = name.removeprefix(prefix).split("/")
            place = functools.reduce(lambda own, key: own.setdefault(key, {}), parents, tree)
            place[last] = value
    return tree
