"""Studies: what is trained, in which order, and what is kept."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest

from afd_jax.engine.build import numbered
from afd_jax.errors import Diverged, Interrupted, SettingError
from afd_jax.reports.terminal import Progress
from experiments.study import plan, runner
from experiments.study.gather import shared_recipe
from experiments.study.plan import Block, Job, Setting, Study, load, settings, stated
from experiments.study.records import Results
from experiments.study.runner import missing
from tests.experiments.small_study import names, recipe, record, study, text_of, trained_in
from tests.running import ROOT


def test_a_study_trains_every_setting_with_every_seed(trained, capsys):
    results = Results(trained / "results.json", study())
    found = [(r["setting"], r["seed"]) for r in results.records]
    assert found == [(s, seed) for s in ("independent", "DML", "KD") for seed in (0, 1)]
    for seed in (0, 1):
        alone, together, taught = (r for r in results.records if r["seed"] == seed)
        assert {n: node["network"] for n, node in alone["nodes"].items()} == {
            "Tiny": "tests.tiny:Tiny",
            "Wider": "tests.tiny:Wider",
        }
        assert [p["epoch"] for p in together["curve"]] == [0.75, 1.5]
        assert together["curve"][-1]["similarity"].keys() == {"Tiny, Wider"}
        assert {*taught["nodes"]} == {"Tiny", "teacher"}
        # A teacher is the network of the same seed, out of the other setting.
        for measure in ("accuracy", "cross_entropy"):
            assert taught["nodes"]["teacher"][measure] == alone["nodes"]["Wider"][measure]
    # The last line of the log.
    assert all(0 < node["train_accuracy"] < 1 for node in together["nodes"].values())
    accuracies = [r["nodes"]["Wider"]["cross_entropy"] for r in results.of("few steps", "DML")]
    assert accuracies[0] != accuracies[1]
    # Only what may teach keeps its checkpoints.
    kept = sorted(p.parent.relative_to(trained / "runs") for p in trained.rglob("summary.json"))
    assert [str(p) for p in kept] == [f"few_steps/independent/seed{s}" for s in (0, 1)]
    assert missing(study(), results) == []
    assert trained_in(trained, study())[0] and "missing" not in capsys.readouterr().out


def test_a_run_that_diverges_does_not_keep_the_others_back(tmp_path, monkeypatch):
    tried = []

    def train(job, root, data_dir):
        tried.append(str(job))
        if "independent, seed 0" in tried[-1]:
            raise Diverged("step 3: the loss is nan")
        raise Interrupted("stopped")

    monkeypatch.setattr(runner, "_train", train)
    with pytest.raises(Interrupted):
        trained_in(tmp_path, study())
    assert len(tried) == 2
    results = Results(tmp_path / "results.json", study())
    with pytest.raises(Diverged, match="independent, seed 0: step 3"):
        runner.train_missing(study(), results, tmp_path, seconds=60, only="independent, seed 0")


KILLED = """
import os, pathlib, signal, sys, time
import tests.conftest
from afd_jax.reports.terminal import Progress
from tests.experiments.small_study import study, trained_in

trained, lines, folder = Progress.trained, [], pathlib.Path(sys.argv[1])
saved = folder / "runs" / "few_steps" / "KD" / "seed0" / "checkpoints" / "2"

def killed(self, record):
    trained(self, record)
    lines.append(record["step"])
    if len(lines) == 8:  # the second line of the third run
        for _ in range(6000):  # it is written in the background
            saved.is_dir() or time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)

Progress.trained = killed
trained_in(folder, study())
"""


def test_killed_in_the_middle_it_continues_to_the_same_file(trained, tmp_path, monkeypatch):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    before = json.loads((tmp_path / "results.json").read_text())["records"]
    assert [(r["setting"], r["seed"]) for r in before] == [("independent", 0), ("DML", 0)]
    folder = tmp_path / "runs" / "few_steps" / "KD" / "seed0"
    assert (folder / "checkpoints" / "2").is_dir() and not (folder / "summary.json").exists()
    steps, shown = [], Progress.trained
    monkeypatch.setattr(Progress, "trained", lambda s, r: (steps.append(r["step"]), shown(s, r)))
    assert trained_in(tmp_path, study())[0]
    assert steps == [4, 6] + 3 * [2, 4, 6]
    assert text_of(tmp_path) == text_of(trained)


def test_seeds_at_once_are_those_one_by_one(trained, tmp_path):
    finished, results = trained_in(tmp_path, study(), at_once=2)
    assert finished
    folders = {p.name for p in (tmp_path / "runs" / "few_steps" / "independent").iterdir()}
    assert folders == {"seeds0-1", "seeds0-1.lock"}
    for ours, theirs in zip(
        results.records, Results(trained / "results.json", study()).records, strict=True
    ):
        assert (ours["setting"], ours["seed"]) == (theirs["setting"], theirs["seed"])
        assert {*ours["nodes"]} == {*theirs["nodes"]}
        for name, node in ours["nodes"].items():
            assert node["accuracy"] == theirs["nodes"][name]["accuracy"]
            entropy = theirs["nodes"][name]["cross_entropy"]
            np.testing.assert_allclose(node["cross_entropy"], entropy, rtol=1e-4)
        for one, other in zip(ours["curve"], theirs["curve"], strict=True):
            assert one["accuracy"] == other["accuracy"]


# The rest trains nothing.


def test_settings_take_turns_seed_by_seed(quick, tmp_path, capsys):
    """So all settings have some seeds before any has all; of every block."""
    two = Study("", (*study().blocks, Block("b", study().blocks[0].settings[:1], recipe, (5, 6))))
    assert trained_in(tmp_path, two)[0]
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"[{n + 1} of 8 missing] {name}"
        for n, name in enumerate(
            [
                "few steps: independent, seed 0",
                "few steps: DML, seed 0",
                "few steps: KD, seed 0",
                "b: independent, seed 5",
                "few steps: independent, seed 1",
                "few steps: DML, seed 1",
                "few steps: KD, seed 1",
                "b: independent, seed 6",
            ]
        )
    ]


def test_a_teacher_is_of_the_same_seed_and_trained_first(quick, tmp_path):
    assert trained_in(tmp_path, study(), only="KD, seed 1")[0]
    root = tmp_path / "runs" / "few_steps"
    assert [folder for folder, _ in quick] == [root / "independent/seed1", root / "KD/seed1"]
    assert quick[1][1].teachers == (f"{root}/independent/seed1@Wider",)
    assert [config.seed for _, config in quick] == [1, 1]
    results = Results(tmp_path / "results.json", study())
    assert names(missing(study(), results)) == [
        f"few steps: {rest}"
        for rest in (
            "independent, seed 0",
            "DML, seed 0",
            "KD, seed 0",
            "independent, seed 1",
            "DML, seed 1",
        )
    ]


def test_teachers_may_come_from_another_block(quick, tmp_path):
    (block,) = study().blocks
    first = Block("first", block.settings[:2], recipe, seeds=(0,))
    second = Block("second", block.settings[2:], recipe, seeds=(0,), teachers=first)
    assert trained_in(tmp_path, Study("", (first, second)))[0]
    root = tmp_path / "runs"
    before = [root / "first" / "independent" / "seed0", root / "first" / "DML" / "seed0"]
    assert [folder for folder, _ in quick] == [*before, before[0], root / "second" / "KD" / "seed0"]
    assert quick[-1][1].teachers == (f"{before[0]}@Wider",)
    assert [folder for folder, _ in quick if folder.is_dir()] == [before[0]] * 2


def test_no_run_begins_when_the_time_is_over(quick, tmp_path, monkeypatch):
    assert not trained_in(tmp_path, study(), seconds=-1)[0] and not quick
    clock = iter(range(0, 1000, 100))
    monkeypatch.setattr(runner, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    assert not trained_in(tmp_path, study(), seconds=250)[0]
    assert len(quick) == 2
    assert not trained_in(tmp_path, study(), seconds=350)[0]
    done = Results(tmp_path / "results.json", study()).records
    assert [(r["setting"], r["seed"]) for r in done] == [
        ("independent", 0),
        ("independent", 1),
        ("DML", 0),
        ("DML", 1),
        ("KD", 0),
    ]


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("at_once", [1, 2])
def test_shares_are_all_of_it_once(count, at_once, quick, tmp_path):
    own = study(seeds=(0, 1, 2, 3))
    whole = names(missing(own, Results(tmp_path / "results.json", own), at_once=at_once))
    assert len(whole) == 12 // at_once
    parts = []
    for which in range(1, count + 1):
        results = Results(tmp_path / "results.json", own)
        options = {"at_once": at_once, "part": (which, count)}
        parts.append(names(missing(own, results, **options)))
        if which == 1:  # what is done already changes no share
            assert trained_in(tmp_path, own, **options)[0]
            assert missing(own, Results(tmp_path / "results.json", own), **options) == []
    assert sorted(itertools.chain(*parts)) == sorted(whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_share_has_whole_seeds(tmp_path):
    own = study(seeds=(0, 1, 2, 3))
    parts = [missing(own, Results(tmp_path / "r.json", own), part=(n, 2)) for n in (1, 2)]
    assert [sorted({job.seeds for job in part}) for part in parts] == [[(0,), (1,)], [(2,), (3,)]]


def test_shares_that_need_one_teacher_wait_for_each_other(quick, tmp_path, monkeypatch):
    at_work, together = [], []

    def train(config, folder, *, show_progress):
        at_work.append(folder)
        time.sleep(0.2)
        together.append(at_work.count(folder))
        at_work.remove(folder)

    monkeypatch.setattr(runner.afd, "train", train)
    (block,) = study().blocks
    again = Setting("KD again", "", teachers=("independent@Tiny", "independent@Wider"))
    monkeypatch.setattr(Job, "config", lambda self, *where: types.SimpleNamespace())

    def whole(setting):
        job = Job(block, setting, (0,))
        with runner._turn(job.folder(tmp_path)):
            shutil.rmtree(runner._train(job, tmp_path, None), ignore_errors=True)

    threads = [
        threading.Thread(target=whole, args=(own,))
        for own in (block.setting("KD"), again, block.setting("independent"))
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert together == 5 * [1]


def test_what_another_share_has_trained_meanwhile_is_left_out(quick, tmp_path, monkeypatch):
    train = runner.afd.train

    def slow(config, folder, **options):
        train(config, folder, **options)
        if len(quick) == 1:
            others = [record("DML", seed, {"a": ("a", 0.5)}) for seed in (0, 1)]
            Results(tmp_path / "results.json", study()).add(others)

    monkeypatch.setattr(runner.afd, "train", slow)
    assert trained_in(tmp_path, study())[0]
    assert "DML" not in [folder.parent.name for folder, _ in quick]


def test_a_run_that_another_share_ends_while_this_one_waits_is_not_trained_again(quick, tmp_path):
    own = study(seeds=(0,))
    (job,) = missing(own, Results(tmp_path / "results.json", own), part=(1, 3))
    with runner._turn(job.folder(tmp_path / "runs")):
        waits = threading.Thread(target=trained_in, args=(tmp_path, own), kwargs={"part": (1, 3)})
        waits.start()
        time.sleep(0.3)
        other = [record(job.setting.name, 0, {"a": ("a", 0.5)})]
        Results(tmp_path / "results.json", own).add(other)
    waits.join()
    assert not quick


def test_a_teacher_that_is_not_the_one_on_record_is_named(tmp_path, capsys):
    own = study()
    (block,) = own.blocks
    alone = record("independent", 0, {"Tiny": ("Tiny", 0.5), "Wider": ("Wider", 0.5)})
    alone["nodes"]["Wider"]["cross_entropy"] = 0.25
    results = Results(tmp_path / "results.json", own)
    results.add([alone])
    taught = record("KD", 0, {"teacher": ("teacher", 0.5)}, role="teacher")
    for entropy, said in ((0.25001, ""), (0.26, "seed 0 of 'independent' was trained again for")):
        taught["nodes"]["teacher"]["cross_entropy"] = entropy
        runner._compare_teachers(Job(block, block.setting("KD"), (0,)), [taught], results)
        out = capsys.readouterr().out
        assert said in out and bool(said) == bool(out)


def test_a_teacher_of_other_settings_is_not_used(trained, tmp_path):
    """Though it lies where it should: its records are gone, but not its run."""
    shutil.copytree(trained / "runs", tmp_path / "runs")

    def longer(config, seed):
        recipe(config, seed)
        config.duration = "8 steps"

    with pytest.raises(SettingError, match=r"config\.duration = '8 steps': the run in .*seed0 has"):
        trained_in(tmp_path, study(own=longer), only="KD")


def test_seeds_with_recipes_of_their_own_are_refused_in_one_program(quick, tmp_path):
    def by_seed(config, seed):
        recipe(config, seed)
        config.data.data_dir = f"/labels-{seed}.npz"

    own = study(own=by_seed)
    words = "--seeds-at-once = 2: the recipe of 'few steps' depends on the seed; train one at once"
    with pytest.raises(SettingError, match=words):
        trained_in(tmp_path, own, at_once=2)
    assert not quick
    assert trained_in(tmp_path, own)[0]
    assert [c.data.data_dir for _, c in quick[:3]] == 3 * ["/labels-0.npz"]
    assert quick[-1][1].data.data_dir == "/labels-1.npz"


def test_a_data_folder_is_for_what_reads_one(quick, tmp_path):
    def arrays(config, seed):
        recipe(config, seed)
        config.data.name, config.data.data_dir = "arrays", "/own.npz"

    assert trained_in(tmp_path / "a", study(), data_dir="/tfds")[0]
    assert {config.data.data_dir for _, config in quick} == {"/tfds"}
    quick.clear()
    assert trained_in(tmp_path / "b", study(own=arrays), data_dir="/tfds")[0]
    assert {config.data.data_dir for _, config in quick} == {"/own.npz"}


def test_seeds_at_once_follow_each_other(tmp_path):
    (block,) = study(seeds=(0, 2)).blocks
    with pytest.raises(SettingError, match=r"--seeds-at-once = 2: \(0, 2\) do not follow"):
        Job(block, block.setting("DML"), (0, 2)).config(tmp_path)


def test_a_change_that_names_no_field_is_named():
    for path, words in (
        ("optimizers.logit.lerning_rate", "did you mean 'learning_rate'"),
        ("batchsize", "did you mean 'batch_size'"),
        ("optimisers.logit.learning_rate", "did you mean 'optimizers'"),
    ):
        (block,) = study(**{path: 1}).blocks
        with pytest.raises(SettingError, match=f"DML: {path} = 1: {words}"):
            settings(block, block.setting("DML"), 0)
    (block,) = study(**{"method.temperature": 5.0, "method.own_option": 1}).blocks
    own = settings(block, block.setting("DML"), 0)
    assert (own.method.temperature, own.method.own_option, own.seed) == (5.0, 1, 0)


@pytest.mark.parametrize("name", plan.NAMES)
def test_every_study_is_whole(name):
    own = plan.load(name)
    assert len({block.name for block in own.blocks}) == len(own.blocks)
    for block in own.blocks:
        every = [setting.name for setting in block.settings]
        assert block.baseline in every and len({*every}) == len(every)
        assert list(block.seeds) == [*range(block.seeds[0], block.seeds[-1] + 1)]
        for setting in block.settings:
            config = settings(block, setting, block.seeds[0])
            said = json.loads(json.dumps(stated(config)))
            assert said["method.name"] == config.method.name and "data.data_dir" not in said
            for teacher in setting.teachers:
                name, _, node = teacher.partition("@")
                (before,) = (j for j in Job(block, setting, (0,)).needs() if j.setting.name == name)
                assert before.block in own.blocks
                assert node in numbered(settings(before.block, before.setting, 0).networks)


def test_an_unknown_study_is_named():
    with pytest.raises(SettingError, match="NAME = 'few_label': did you mean 'few_labels'"):
        plan.load("few_label")


@pytest.mark.parametrize("name", ["few_labels", "few_labels_claims", "cifar100_small"])
def test_the_settings_of_a_block_share_one_recipe(name):
    for block in load(name).blocks:
        found = {
            setting.name: shared_recipe(settings(block, setting, block.seeds[0]))
            for setting in block.settings
        }
        for own in found.values():
            own["data"].pop("class_pairs")  # which MCL needs
        first = found[block.baseline]
        assert {setting for setting, own in found.items() if own != first} == set()
