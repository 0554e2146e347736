"""Runs that end when what they watch has ceased to fall: where, with what, and after a crash."""

import json
import shutil

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

from afd_jax.commands import evaluate, report
from afd_jax.errors import SettingError
from afd_jax.runs.assemble import assemble
from afd_jax.runs.checkpoint import Checkpoints
from afd_jax.runs.early_stopping import EarlyStopping
from afd_jax.runs.overrides import read_config
from afd_jax.runs.trained import load
from tests import tiny
from tests.running import ROOT, command, ctrl_c_after, lines

ONE = f"{ROOT}/tests/digits_config.py:tests.tiny:Tiny"
TWO = f"{ONE},tests.tiny:Wider"
SETTINGS = (
    "--config.twins=False",
    "--config.graph=own",
    "--config.data.limit=128",
    "--config.batch_size=32",
    "--config.eval_batch_size=64",
    "--config.duration=12 epochs",
    "--config.log_every=3 steps",
    "--config.checkpoint_every=5 steps",
    "--config.parallel.devices=1",
    "--config.optimizers.logit.learning_rate=0.5",  # too much, so that there are ups and downs
)
PATIENT = "--config.early_stopping.patience=2"
KD = ("--config.method.name=kd", "--config.method.temperature=1.0")


def run(workdir, *more, config=ONE):
    return command(workdir, *more, config=config, settings=SETTINGS)


def summary(workdir):
    return json.loads((workdir / "summary.json").read_text())


def heldout(workdir):
    return [record for record in lines(workdir) if record["kind"] == "heldout"]


def state_of(workdir, *more, config=ONE):
    assembled = assemble(read_config(config, [*SETTINGS, *more]), workdir)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return jax.device_get(checkpoints.restore(assembled.initial_state())[0])


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """The options of a student under a teacher."""
    workdir = tmp_path_factory.mktemp("teacher")
    assert run(workdir, "--config.method.name=independent", "--config.duration=2 epochs") == 0
    return (*KD, PATIENT, f"--config.teachers=('{workdir}',)")


@pytest.fixture(scope="module")
def stopped(taught, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("stopped")
    assert run(workdir, *taught) == 0
    return workdir


def require_right_end(workdir, watch, names, patience=2):
    """From the records alone: the first step with so many evaluations since the least value."""
    found, steps = {}, 48
    for record in heldout(workdir):
        found.setdefault(record["step"], []).extend(record[watch][name] for name in names)
    values = [np.mean(own) for own in found.values()]
    for n in range(1, len(values) + 1):
        if n - 1 - int(np.argmin(values[:n])) == patience:
            steps = [*found][n - 1]
            break
    assert steps < 48 and steps == [*found][-1]
    own = summary(workdir)
    assert (own["steps"], own["epochs"]) == (steps, steps / 4)
    early = own["stopped_early"]
    assert (early["watch"], early["patience"], early["step"]) == (watch, patience, steps)
    np.testing.assert_allclose(early["value"], values[-1])
    np.testing.assert_allclose(early["least"], np.min(values))
    assert early["least_step"] == [*found][np.argmin(values)] == steps - 4 * patience
    assert (workdir / "checkpoints" / str(steps)).is_dir()
    return steps


def test_a_run_ends_when_its_divergence_has_ceased_to_fall(stopped, taught, tmp_path, capsys):
    steps = require_right_end(stopped, "divergence", ["Tiny"])
    assert steps % 5  # a step at which nothing else is saved
    test = [record for record in lines(stopped) if record["kind"] == "test"]
    assert test[-1]["step"] == steps == max(record["step"] for record in lines(stopped))
    assert summary(stopped)["networks"][0]["test_accuracy"] == test[-1]["accuracy"]["Tiny"]
    assert "divergence" not in test[-1]
    assert run(stopped, *taught) == 0
    assert "is finished" in capsys.readouterr().out
    # With more patience it goes on from there, to the planned end.
    longer = (*taught[:2], *taught[3:], "--config.early_stopping.patience=40")
    assert run(tmp_path, *longer) == 0
    assert summary(tmp_path)["steps"] == 48 and "stopped_early" not in summary(tmp_path)
    assert heldout(tmp_path)[: len(heldout(stopped))] == heldout(stopped)


def test_the_divergence_is_that_of_the_networks_as_they_are_used(stopped, taught):
    """Computed from what `load` gives, on the images that were held out."""
    settings = read_config(ONE, [*SETTINGS, *taught])
    images = assemble(settings, stopped).splits.heldout.images
    modules = {"Tiny": tiny.Tiny(10)}
    folders = (stopped, settings.teachers[0])
    own, teacher = (
        log_softmax(np.asarray(load(f, modules=modules)(images).logits, np.float64), -1)
        for f in folders
    )
    kl = np.mean(np.sum(np.exp(teacher) * (teacher - own), -1))
    np.testing.assert_allclose(heldout(stopped)[-1]["divergence"]["Tiny"], kl, rtol=1e-4)


def test_other_commands_take_it_as_it_is(stopped, taught, tmp_path, capsys, caplog):
    trust = ["--trust"]
    assert evaluate.main([str(stopped), *trust]) == 0
    assert "not compared" not in capsys.readouterr().err
    page = tmp_path / "page.html"
    assert report.main([str(stopped), f"--to={page}", "--no-images"]) == 0
    assert "stopped early by the held-out divergence" in page.read_text()
    assert run(stopped, *taught, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "at most 48 steps of 32 images" in out and out.rstrip().count("finished") == 1
    load(stopped, trust=True)
    assert not caplog.records
    # And it teaches.
    more = [taught[0], f"--config.teachers=('{stopped}',)", "--config.duration=1 steps"]
    assert run(tmp_path / "next", *more) == 0


def require_equal(a, b, *more, config=ONE):
    """Networks, optimizers and all that is written but for times."""
    ours, theirs = (state_of(w, *more, config=config) for w in (a, b))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    one, other = (summary(w) for w in (a, b))
    for key in ("networks", "steps", "epochs", "stopped_early"):
        assert one[key] == other[key]
    for one, other in zip(lines(a), lines(b), strict=True):
        one.pop("images_per_second", None), other.pop("images_per_second", None)
        assert one == other


class Killed(Exception):
    pass


@pytest.mark.parametrize("where", ["before the save", "before the summary", "in between"])
def test_killed_and_continued_it_ends_at_the_same_step(
    where, stopped, taught, tmp_path, monkeypatch
):
    steps = summary(stopped)["steps"]
    with monkeypatch.context() as patch:
        if where == "in between":
            ctrl_c_after(patch, 6)
            assert run(tmp_path, *taught) == 130
        elif where == "before the save":
            save = Checkpoints.save

            def kill(self, state, notes):
                if state.steps_done == steps:
                    raise Killed
                save(self, state, notes)

            patch.setattr(Checkpoints, "save", kill)
        else:

            def die(*_, **__):
                raise Killed

            patch.setattr("afd_jax.runs.trainer.summarise", die)
        if where != "in between":
            with pytest.raises(Killed):
                run(tmp_path, *taught)
            assert heldout(tmp_path) == heldout(stopped)
    assert not (tmp_path / "summary.json").exists()
    assert run(tmp_path, *taught) == 0
    require_equal(stopped, tmp_path, *taught)


@pytest.mark.parametrize("lost", ["nothing", "the last evaluation", "everything"])
def test_what_is_lost_after_the_last_save_is_made_again(lost, stopped, taught, tmp_path):
    """The summary, and records; the decision stands in the checkpoint."""
    copy = shutil.copytree(stopped, tmp_path / "copy")
    (copy / "summary.json").unlink()
    steps = summary(stopped)["steps"]
    if lost != "nothing":
        kept = [r for r in lines(stopped) if lost != "everything" and r["step"] != steps]
        (copy / "metrics.jsonl").write_text("".join(json.dumps(own) + "\n" for own in kept))
    assert run(copy, *taught) == 0
    assert summary(copy)["stopped_early"] == summary(stopped)["stopped_early"]
    assert heldout(copy)[-1] == heldout(stopped)[-1]
    if lost == "nothing":
        require_equal(stopped, copy, *taught)


def test_seeds_and_students_stop_together(tmp_path):
    """By the mean over both, of networks that teach each other; on several steps a call."""
    more = (PATIENT, "--config.method.name=dml", "--config.seeds=2")
    more += ("--config.parallel.steps_per_call=4", "--config.log_every=100 steps")
    assert run(tmp_path, *more, config=TWO) == 0
    steps = require_right_end(tmp_path, "divergence", ["Tiny", "Wider"])
    assert [record["seed"] for record in heldout(tmp_path)[-2:]] == [0, 1]
    # No line would be due before the end; at the earliest end there is one.
    trained = [record["step"] for record in lines(tmp_path) if record["kind"] == "train"]
    assert trained == [s for s in range(12, steps + 1, 12) for _ in range(2)] != []


def test_cross_entropy_needs_no_sources(tmp_path):
    more = (PATIENT, "--config.early_stopping.watch=cross_entropy")
    assert run(tmp_path, *more, "--config.method.name=independent") == 0
    require_right_end(tmp_path, "cross_entropy", ["Tiny"])
    assert not any("divergence" in record for record in lines(tmp_path))


def test_what_is_trained_first_has_nobody_to_be_near(tmp_path):
    """A chain whose first generation learns from labels alone; the next ones stop early."""
    more = (*KD, PATIENT, "--config.generations=3", "--config.duration=8 epochs")
    assert run(tmp_path, *more) == 0
    first, second = (summary(tmp_path / f"generation_{g}") for g in (1, 2))
    assert first["steps"] == 32 and "stopped_early" not in first
    assert second["steps"] == second["stopped_early"]["step"] < 32
    assert summary(tmp_path)["generations"][1]["test_accuracy"] > 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("patience=-1", "config.early_stopping.patience = -1: must be a whole number and at le"),
        ("watch=loss", "config.early_stopping.watch = 'loss': Choose one of: cross_entropy, div"),
        ("patience=2 --config.data.heldout=0.0", "config.data.heldout = 0.0: early stopping"),
        (
            "patience=2 --config.method.name=independent",
            "config.early_stopping.watch = 'divergence': in this graph nobody learns from",
        ),
        ("pacience=2", "config.early_stopping.pacience = '2': unknown field; did you mean"),
    ],
)
def test_mistakes_are_named_before_anything_is_compiled(more, words, tmp_path, capsys):
    assert run(tmp_path / "w", *f"--config.early_stopping.{more}".split()) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_a_value_that_is_only_reached_again_is_no_improvement():
    stopping = EarlyStopping(3, "cross_entropy")
    watched = [[step, value] for step, value in enumerate([3.0, 2.0, 2.0, 2.5, 2.0])]
    assert [bool(stopping.verdict(watched[:n])) for n in range(6)] == [False] * 5 + [True]
    assert stopping.verdict(watched)["least_step"] == 1
    assert stopping.verdict([*watched[:4], [4, 1.9]]) is None
    assert EarlyStopping(0).verdict(watched) is None
    with pytest.raises(SettingError, match=r"early_stopping.patience = True"):
        EarlyStopping(True)
