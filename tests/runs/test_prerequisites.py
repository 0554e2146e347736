"""Whole runs that need others first: teachers and generations; stopped and continued."""

import json
import shutil
import signal

import jax
import numpy as np
import pytest

from afd_jax.runs import loop, program, trainer
from afd_jax.runs.assemble import assemble
from afd_jax.runs.checkpoint import Checkpoints
from afd_jax.runs.overrides import read_config
from afd_jax.runs.trained import load
from tests import small
from tests.running import ROOT, command, ctrl_c_after, lines

CONFIG = f"{ROOT}/tests/digits_config.py:tests.tiny:Tiny"
SETTINGS = (
    "--config.twins=False",
    "--config.graph=own",
    "--config.data.limit=128",
    "--config.data.pad=1",
    "--config.batch_size=32",
    "--config.eval_batch_size=64",
    "--config.duration=2 epochs",
    "--config.log_every=2 steps",
    "--config.parallel.devices=1",
)
STUDENT = "--config.teachers=('tests.tiny:Tiny',)"


def run(workdir, method, *more):
    method = f"--config.method.name={method}"
    return command(workdir, method, *more, config=CONFIG, settings=SETTINGS)


def state_of(workdir, method, *more):
    settings = [*SETTINGS, f"--config.method.name={method}", *more]
    assembled = assemble(read_config(CONFIG, settings), workdir)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        return checkpoints.restore(assembled.initial_state())[0]


def summary(workdir):
    return json.loads((workdir / "summary.json").read_text())


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("taught")
    assert run(workdir, "kd", STUDENT) == 0
    return workdir


def test_one_command_trains_the_teacher_and_the_student(taught):
    teacher, student = summary(taught / "teacher_0"), summary(taught)
    (other,) = student["others"]
    assert (other["name"], other["role"]) == ("teacher", "teacher")
    assert other["test_accuracy"] == teacher["networks"][0]["test_accuracy"]
    assert teacher["seed"] == 1000 and student["seed"] == 0
    # What is frozen is evaluated once.
    tested = [r["accuracy"] for r in lines(taught) if r["kind"] == "test"]
    assert ["teacher" in accuracy for accuracy in tested] == [True, False]
    config = json.loads((taught / "teacher_0" / "config.json").read_text())
    assert config["method"]["name"] == "independent" and config["teachers"] == []
    ours = jax.tree.leaves(state_of(taught, "kd", STUDENT).networks["teacher"].params["network"])
    theirs = jax.tree.leaves(load(taught / "teacher_0", trust=True).variables["params"])
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_teacher_can_be_used_again(taught, tmp_path, capsys):
    folder = f"--config.teachers=('{taught}/teacher_0',)"
    assert run(tmp_path / "again", "kd", folder) == 0
    assert "first:" not in capsys.readouterr().out
    assert summary(tmp_path / "again")["networks"] == summary(taught)["networks"]
    # The folder may move, but what is in it may not be another network.
    moved = shutil.copytree(taught / "teacher_0", tmp_path / "moved")
    (tmp_path / "again" / "summary.json").unlink()
    assert run(tmp_path / "again", "kd", f"--config.teachers=('{moved}',)") == 0
    (tmp_path / "again" / "summary.json").unlink()
    assert run(tmp_path / "again", "kd", f"--config.teachers=('{taught}@Tiny',)") == 2
    assert "holds other networks than the run" in capsys.readouterr().err


def stop_at(monkeypatch, *when):
    """Sends Ctrl-C where (folder, step) says; once each."""
    left, write = list(when), loop.Loop._write

    def interrupt(self, kind, step, *more):
        if left and kind == "train" and (self.run.seeds[0], step) == left[0]:
            left.pop(0)
            signal.raise_signal(signal.SIGINT)
        return write(self, kind, step, *more)

    monkeypatch.setattr(loop.Loop, "_write", interrupt)
    return left


def test_three_generations_killed_twice_end_bit_equal(tmp_path, monkeypatch, capsys):
    more = ("--config.generations=3",)
    assert run(tmp_path / "whole", "feed", *more) == 0
    table = capsys.readouterr().out
    assert "generation 1" in table and "generation 2" in table

    left = stop_at(monkeypatch, (2_000_000, 2), (0, 4))  # in the second generation, in the third
    assert run(tmp_path / "cut", "feed", *more) == 130
    assert run(tmp_path / "cut", "feed", *more) == 130
    assert not left
    capsys.readouterr()
    assert run(tmp_path / "cut", "feed", *more) == 0
    assert capsys.readouterr().out.count("first:") == 0  # what is finished is not begun again
    ours, theirs = (state_of(tmp_path / w, "feed", *more) for w in ("whole", "cut"))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    whole, cut = (summary(tmp_path / w) for w in ("whole", "cut"))
    assert whole["networks"] == cut["networks"] and whole["generations"] == cut["generations"]
    assert [g["generation"] for g in whole["generations"]] == [1, 2]
    first = json.loads((tmp_path / "cut" / "generation_1" / "config.json").read_text())
    assert first["method"]["name"] == "independent"

    # The last stage is the parallel form with one teacher.
    teacher = f"--config.teachers=('{tmp_path}/whole/generation_2',)"
    assert run(tmp_path / "parallel", "feed", teacher) == 0
    parallel = state_of(tmp_path / "parallel", "feed", teacher)
    jax.tree.map(np.testing.assert_array_equal, ours, parallel)


@pytest.mark.parametrize("method", ["ps_kd", "cs_kd", "ai_kd"])
def test_the_past_is_continued_bit_equal(method, tmp_path, monkeypatch, taught):
    more = (f"--config.teachers=('{taught}/teacher_0',)",) if method == "ai_kd" else ()
    assert run(tmp_path / "whole", method, *more) == 0
    stop_at(monkeypatch, (0, 6))  # in the middle of the second epoch
    assert run(tmp_path / "cut", method, *more) == 130
    assert run(tmp_path / "cut", method, *more) == 0
    ours, theirs = (state_of(tmp_path / w, method, *more) for w in ("whole", "cut"))
    assert int(ours.step) == 8
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_paraphraser_is_trained_before_the_first_step(tmp_path, monkeypatch, taught, capsys):
    """Stopped in it, it begins again; stopped after it, its encoder stays."""
    more = (f"--config.teachers=('{taught}/teacher_0',)", "--config.method.paraphraser_epochs=0.5")
    assert run(tmp_path / "whole", "ft", *more) == 0
    whole = state_of(tmp_path / "whole", "ft", *more)
    drawn = assemble(read_config(CONFIG, [*SETTINGS, "--config.method.name=ft", *more]))
    before, after = (
        s.networks["teacher"].params["heads"]["teacher"]["encoder"]
        for s in (drawn.initial_state(), whole)
    )
    assert small.largest_difference(before, after) > 1e-4
    assert "loss/reconstruction" not in str(lines(tmp_path / "whole"))

    wanted = program.prepared

    def stopping(run, state, going_on):
        def then(done):
            if done == 1:
                signal.raise_signal(signal.SIGINT)
            going_on(done)

        return wanted(run, state, then)

    monkeypatch.setattr(trainer, "prepared", stopping)
    capsys.readouterr()
    assert run(tmp_path / "cut", "ft", *more) == 130
    assert "stopped before the first step" in capsys.readouterr().err
    monkeypatch.undo()
    ctrl_c_after(monkeypatch, 2)
    assert run(tmp_path / "cut", "ft", *more) == 130
    monkeypatch.undo()
    assert run(tmp_path / "cut", "ft", *more) == 0
    cut = state_of(tmp_path / "cut", "ft", *more)
    jax.tree.map(np.testing.assert_array_equal, whole, cut)


def test_seeds_have_teachers_of_their_own(tmp_path):
    more = ("--config.duration=1 epochs",)
    assert run(tmp_path / "both", "kd", STUDENT, "--config.seeds=2", *more) == 0
    both = state_of(tmp_path / "both", "kd", STUDENT, "--config.seeds=2", *more)
    assert run(tmp_path / "second", "kd", STUDENT, "--config.seed=1", *more) == 0
    second = state_of(tmp_path / "second", "kd", STUDENT, "--config.seed=1", *more)
    own = jax.tree.map(lambda x: x[1], both.networks)
    assert small.largest_difference(own, second.networks) < 1e-4


def spoil(taught, tmp_path, **data):
    """A copy of the teacher's folder with other facts about its data."""
    folder = shutil.copytree(taught / "teacher_0", tmp_path / "teacher")
    facts = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps(facts | data))
    return folder


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"classes": 100}, "the teacher learned classes 100, the data here have 10"),
        ({"image_shape": [32, 32, 3]}, "the teacher learned images of shape [32, 32, 3]"),
        ({"mean": [0.1]}, "the teacher's images had data.mean (0.1,), here it is"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(data, words, taught, tmp_path, capsys):
    folder = spoil(taught, tmp_path, **data)
    assert run(tmp_path / "new", "kd", f"--config.teachers=('{folder}',)") == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: config.teachers[0] = '{folder}': {words}"), error
    assert not (tmp_path / "new").exists()


def test_a_teacher_that_is_not_there_or_not_finished(taught, tmp_path, capsys):
    def error(entry, *more):
        assert run(tmp_path / "new", "kd", f"--config.teachers=('{entry}',)", *more) == 2
        assert not (tmp_path / "new").exists()
        return capsys.readouterr().err

    assert "no run in this folder" in error("no/where")
    assert "a network's name: did you mean 'resnet8'?" in error("resnet9")
    assert "config.teachers[0] = 'no.module:X': could not import it" in error("no.module:X")
    assert "node = 'x': Choose one of: Tiny" in error(f"{taught}/teacher_0@x")
    folder = shutil.copytree(taught / "teacher_0", tmp_path / "teacher")
    (folder / "summary.json").unlink()
    assert "that run is not finished (no summary.json)" in error(folder)
    folder = shutil.copytree(taught / "teacher_0", tmp_path / "spoilt")
    (folder / "config.json").write_text("{}")
    assert "is damaged (method, networks missing)" in error(folder)
    (folder / "config.json").write_text('{"seed":')
    assert "is damaged" in error(folder)
    assert run(tmp_path / "new", "dml", "--config.generations=0") == 2
    assert "config.generations = 0: must be a whole number" in capsys.readouterr().err
    assert run(tmp_path / "new", "kd", "--config.teachers='runs/a'") == 2
    assert "config.teachers" in capsys.readouterr().err


MISTAKES = {
    ("ps_kd", "--config.generations=2"): "config.generations = 2: PSKD takes no frozen teachers",
    ("kd", "--config.teachers=()"): "config.teachers = (): KD needs a frozen teacher",
    ("kd", "--config.seed=4294967295", STUDENT): "config.seed = 4294967295: must be a whole number",
    ("ft", "--config.method.rate=2", STUDENT): "config.method.rate = 2.0: must be a number and",
    ("kd", "--config.method.temperature=1e30", STUDENT): "config.method.temperature = 1e+30: must",
    ("kd", "--config.second_forward=True", STUDENT): "config.second_forward = True: has no effect",
    (
        "kd",
        "--config.generations=2",
        "--config.teachers=('no/where',)",
    ): "config.teachers[0] = 'no/",
    (
        "ft",
        "--config.graph=cyclic",
        "--config.networks=('tests.tiny:Tiny','tests.tiny:Tiny')",
        STUDENT,
    ): "config.graph = ('Tiny', 'Tiny_1'): FT has no edges between networks that train",
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: " ".join(m[:2]))
def test_mistakes_are_found_before_anything_is_trained(mistake, tmp_path, capsys):
    assert run(tmp_path / "new", *mistake) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {MISTAKES[mistake]}"), error
    assert not (tmp_path / "new").exists()


def test_edges_from_a_teacher_and_a_duration_without_a_space(tmp_path, taught):
    folder = f"--config.teachers=('{taught}/teacher_0@Tiny',)"
    more = ("--config.graph=(('teacher','Tiny'),)", "--config.duration=4steps")
    assert run(tmp_path, "kd", folder, *more) == 0
    assert lines(tmp_path)[-1]["step"] == 4


def test_a_finished_run_is_not_another_teachers(tmp_path, taught, capsys):
    workdir = shutil.copytree(taught, tmp_path / "copy")
    assert run(workdir, "kd", "--config.teachers=('tests.tiny:Wider',)") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: config.networks = ['tests.tiny:Wider']: the run in"), error
    assert run(workdir, "kd", STUDENT) == 0
    shutil.rmtree(workdir / "teacher_0")  # it may go when it is no longer needed
    assert run(workdir, "kd", STUDENT) == 0
    assert "is finished" in capsys.readouterr().out
