"""Data on the device, several steps a call, several seeds at once: numbers of the plain step."""

import dataclasses
import functools
import json
import types

import jax
import numpy as np
import pytest

from afd_jax.engine import seeds
from afd_jax.engine.step import train_step
from afd_jax.runs.assemble import assemble
from afd_jax.runs.overrides import read_config
from afd_jax.runs.profile import Span
from afd_jax.runs.program import Update, evaluate_networks, steps_per_call
from afd_jax.runs.trained import load
from afd_jax.runs.workdir import Workdir
from experiments.study.gather import gather
from experiments.study.tables import by_network
from tests import small
from tests.running import ROOT, SETTINGS, command, final_state, lines

CONFIG = f"{ROOT}/tests/digits_config.py:tests.tiny:Tiny,tests.tiny:Wider"
AUGMENTED = ("--config.data.pad=1", "--config.data.flip=True")


def assembled(*more):
    return assemble(read_config(CONFIG, [*SETTINGS, *AUGMENTED, "--config.twins=False", *more]))


def trained(run, calls):
    state, update = run.devices.put_state(run.initial_state()), Update(run, 0)
    for _, batch in zip(range(calls), update.placed(), strict=False):
        state, metrics = update(state, batch)
    return jax.device_get((state, metrics))


@pytest.fixture(scope="module")
def plain():
    """Four steps of the pure function on batches from the host, one at a time."""
    run = assembled()
    state, train = run.initial_state(), run.splits.train
    step = jax.jit(functools.partial(train_step, run.plan, preprocess=run.recipe.train))
    for rows in np.concatenate(
        [b["index"] for _, b in zip(range(4), Update(run, 0).batches(), strict=False)], 1
    ).T:
        batch = {"image": train.images[rows], "label": train.labels[rows], "index": rows}
        state, metrics = step(state, batch)
    return jax.device_get((state, metrics))


@pytest.mark.parametrize("calls", [4, 2])
def test_the_quick_way_equals_the_plain_step(plain, calls):
    state, metrics = trained(assembled(f"--config.parallel.steps_per_call={4 // calls}"), calls)
    assert state.steps_done == plain[0].steps_done == 4
    assert small.largest_difference(state.networks, plain[0].networks) < 1e-5
    last = jax.tree.map(lambda x: x[-1], metrics)
    assert small.largest_difference(last, plain[1]) < 1e-5


def test_seeds_in_turns_are_those_mapped_over(monkeypatch):
    """The first on CPUs, the second elsewhere."""
    cohort = small.cohort()
    state = cohort.init(jax.random.split(jax.random.key(0), 2))
    batches = [small.batch(seed=seed) for seed in (0, 1)]
    batch = jax.tree.map(lambda *each: np.stack(each, 1), *batches)
    step, results = functools.partial(train_step, cohort.plan), []
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        both = jax.jit(seeds.mapped(step, 2, (0, 1)))
        results.append(both(state, batch))
    monkeypatch.undo()
    assert small.largest_difference(*results) < 1e-5


def test_seeds_side_by_side_equal_each_alone(tmp_path):
    short = ("--config.duration=8 steps", "--config.parallel.steps_per_call=2")
    short += ("--config.method.name=dml", "--config.twins=False")
    plain = {"config": CONFIG, "settings": SETTINGS[:-1]}
    assert command(tmp_path / "both", *short, "--config.seeds=2", **plain) == 0
    both = final_state(tmp_path / "both", *short, "--config.seeds=2", **plain)
    summary = json.loads((tmp_path / "both" / "summary.json").read_text())
    for i in range(2):
        folder = tmp_path / f"seed{i}"
        assert command(folder, *short, f"--config.seed={i}", **plain) == 0
        own = jax.tree.map(lambda x, i=i: x[i], both)
        alone = final_state(folder, *short, f"--config.seed={i}", **plain)
        assert small.largest_difference(own.networks, alone.networks) < 1e-4
        records = [r for r in lines(tmp_path / "both") if r["seed"] == i]
        for ours, theirs in zip(records, lines(folder), strict=True):
            assert {*ours} == {*theirs} and ours["kind"] == theirs["kind"]
            if ours["kind"] == "train":
                np.testing.assert_allclose(
                    ours["Tiny/loss/cross_entropy"], theirs["Tiny/loss/cross_entropy"], rtol=1e-4
                )
        single = json.loads((folder / "summary.json").read_text())
        assert summary["runs"][i]["networks"] == single["networks"]
        image = np.zeros((1, 8, 8, 1), np.uint8)
        ours = load(tmp_path / "both", "Wider", seed=i, trust=True)(image).logits
        np.testing.assert_allclose(ours, load(folder, "Wider", trust=True)(image).logits, rtol=1e-3)
    accuracies = [run["networks"][1]["test_accuracy"] for run in summary["runs"]]
    assert summary["networks"][1]["test_accuracy"] == np.mean(accuracies)
    np.testing.assert_allclose(
        summary["networks"][1]["test_accuracy_deviation"], np.std(accuracies, ddof=1)
    )
    # Gathered, one folder of two seeds is two folders of one.
    (_, ours, said), (_, theirs, also_said) = (
        gather("", {"DML": [Workdir(tmp_path / name) for name in names]})
        for names in (["both"], ["seed0", "seed1"])
    )
    assert by_network(ours.records) == by_network(theirs.records) and said == also_said
    curves = [
        [[p["accuracy"] for p in r["curve"]] for r in every.records] for every in (ours, theirs)
    ]
    assert curves[0] == curves[1] and len(curves[0]) == 2


def test_an_evaluation_shows_signs_of_life():
    """Of every batch, but not while it is compiled."""
    told = []
    watchdog = types.SimpleNamespace(
        rest=lambda: told.append("rest"), alive=lambda: told.append("alive")
    )
    run = assembled("--config.eval_batch_size=64")
    state, evaluate = run.devices.put_state(run.initial_state()), evaluate_networks(run, ["Tiny"])
    batches = -(-len(run.splits.test) // 64)
    first, again = (evaluate(state, run.splits.test, watchdog) for _ in range(2))
    assert batches > 1 and told == ["rest"] + ["alive"] * 2 * batches
    assert first[0]["correct"] == again[0]["correct"]


def test_calls_end_where_something_is_due():
    run = assembled("--config.log_every=12 steps", "--config.parallel.steps_per_call=10")
    assert (run.steps_per_epoch, run.total_steps) == (6, 24)
    assert steps_per_call(run, 0) == 6
    assert steps_per_call(run, 4) == 2  # continued after four steps
    traced = dataclasses.replace(run, profile=Span(first=9, last=15))
    assert steps_per_call(traced, 0) == 3


def test_a_run_has_pairs_of_a_class_if_asked():
    labels = assembled().splits.train.labels

    def pairs(run):
        batch = next(iter(Update(run, 0).batches()))["index"].reshape(-1)
        return np.mean(labels[batch[::2]] == labels[batch[1::2]])

    asked = ("--config.data.class_pairs=True", "--config.batch_size=16")
    assert pairs(assembled(*asked)) == 1 and pairs(assembled(asked[1])) < 0.5
