"""Studies: what is trained, what is kept, what the tables say, and gathering other runs."""

import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
from scipy import stats

from afd_jax.engine.build import numbered
from afd_jax.errors import SettingError
from afd_jax.reports.paired import Difference, paired, seeds_needed, spread
from afd_jax.reports.terminal import Progress
from experiments.study import __main__ as command_line
from experiments.study import figures, page, plan, runner, tables
from experiments.study.gather import main as gather
from experiments.study.plan import Block, Job, Setting, Study, settings, stated
from experiments.study.records import Records, Results, records_of
from experiments.study.runner import alone, missing, train_missing
from tests.running import ROOT

SVG = "<?xml"
PAIR = "tests.tiny:Tiny,tests.tiny:Wider"


def recipe(config, seed):
    """Six steps on digits."""
    config.data.name, config.data.limit, config.data.heldout = "digits", 64, 0.0
    config.data.mean, config.data.std = (0.3,), (0.4,)
    config.data.pad, config.data.pad_mode, config.data.flip = 1, "zero", False
    config.batch_size, config.eval_batch_size = 16, 64
    config.duration = "6 steps"
    config.log_every = config.checkpoint_every = "2 steps"
    config.eval_every = "3 steps"
    config.parallel.devices = 1
    config.optimizers.logit.schedule = {"name": "cosine"}


def study(*, seeds=(0, 1), own=recipe, **changes):
    """Of two networks alone, two together, and one that learns from one of the first two."""
    kd = Setting("KD", f"cifar100_kd:{PAIR}", teachers=("independent@Wider",))
    block = Block(
        "few steps",
        (
            Setting("independent", f"cifar100_independent:{PAIR}"),
            Setting("DML", f"cifar100_dml:{PAIR}", changes),
            kd,
        ),
        own,
        seeds=seeds,
    )
    return Study("Which one?", (block,))


def text_of(folder):
    """The JSON, but for the commit, which may be another by now."""
    return re.sub(r'"commit": "[^"]*"', "", (folder / "results.json").read_text())


def trained_in(folder, own, **options):
    results = Results(folder / "results.json", own)
    options = {"seconds": 3600, **options}
    return train_missing(own, results, folder / "runs", **options), results


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a study that is done."""
    folder = tmp_path_factory.mktemp("study")
    assert trained_in(folder, study())[0]
    return folder


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
    accuracies = [r["nodes"]["Wider"]["cross_entropy"] for r in results.of("few steps", "DML")]
    assert accuracies[0] != accuracies[1]
    # Only what may teach keeps its checkpoints.
    kept = sorted(p.parent.relative_to(trained / "runs") for p in trained.rglob("summary.json"))
    assert [str(p) for p in kept] == [f"few_steps/independent/seed{s}" for s in (0, 1)]
    assert missing(study(), results) == []
    assert trained_in(trained, study())[0] and "missing" not in capsys.readouterr().out


KILLED = """
import os, pathlib, signal, sys, time
import tests.conftest
from afd_jax.reports.terminal import Progress
from tests.experiments.test_study import study, trained_in

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


@pytest.fixture
def quick(monkeypatch):
    """Runs that do nothing; a list of (folder, settings) of what was asked for."""
    asked = []

    def train(config, folder, *, show_progress):
        asked.append((folder, config))
        folder.mkdir(parents=True, exist_ok=True)

    def records(folder, block, setting):
        config = [own for asked_for, own in asked if asked_for == folder][-1]
        seeds = range(config.seed, config.seed + config.seeds)
        return [record(setting.name, seed, {"a": ("a", 0.5)}, block.name) for seed in seeds]

    monkeypatch.setattr(runner, "afd", types.SimpleNamespace(train=train))
    monkeypatch.setattr(runner, "records_of", records)
    monkeypatch.setattr(runner.jax, "clear_caches", lambda: None)
    return asked


def record(setting, seed, nodes, block="few steps", ensemble=0.5, role="student"):
    """As of a run; nodes are (network, accuracy) by name."""
    own = {n: {"network": w, "role": role, "accuracy": a} for n, (w, a) in nodes.items()}
    return {
        "block": block,
        "setting": setting,
        "seed": seed,
        "nodes": own,
        "ensemble_accuracy": ensemble,
        "curve": [],
    }


def names(jobs):
    return [str(job) for job in jobs]


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


@pytest.fixture
def asked(quick, tmp_path, monkeypatch):
    """The command line, with the study above for any name."""
    monkeypatch.setattr(command_line, "load", lambda name: study())
    monkeypatch.setattr(command_line, "NAMES", ("tiny",))
    own = [f"--runs={tmp_path}/runs", f"--results={tmp_path}"]
    return lambda *arguments: command_line.main([*arguments, *own])


def test_without_hours_the_command_line_trains_nothing(quick, asked, tmp_path, capsys):
    assert asked("tiny") == 0 and not quick
    assert "no results yet; --hours=H trains" in capsys.readouterr().out
    assert asked("--list") == 0
    assert re.search(r"^tiny +0 of 6 +Which one\?$", capsys.readouterr().out, re.MULTILINE)
    assert asked("tiny", "--hours=1", "--only=DML") == 0 and len(quick) == 2
    assert asked("--list") == 0
    assert re.search(r"^tiny +2 of 6 +Which one\?$", capsys.readouterr().out, re.MULTILINE)
    assert asked("tiny", "--hours=1", "--part=1/2") == 0
    assert asked("tiny", "--hours=1", "--part=2/2") == 0
    assert "2 seeds each." in capsys.readouterr().out
    assert (tmp_path / "tiny.svg").read_text().startswith(SVG)


def test_a_second_runner_is_refused(quick, asked, tmp_path, capsys):
    with alone(tmp_path / "runs" / "tiny", (1, 1)):
        assert asked("tiny", "--hours=1") == 2
        assert "this study runs already; wait for it, or share it out" in capsys.readouterr().err
        assert not quick
    with alone(tmp_path / "runs" / "tiny", (1, 2)):
        with pytest.raises(SettingError, match=r"--runs = .*: this study runs already"):
            with alone(tmp_path / "runs" / "tiny", (1, 2)):
                pass
        assert asked("tiny", "--hours=1", "--part=2/2") == 0 and len(quick) >= 3
    with alone(tmp_path / "runs" / "tiny", (1, 2)):
        pass


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
    threads = [
        threading.Thread(target=runner._train, args=(Job(block, own, (0,)), tmp_path, None))
        for own in (block.setting("KD"), again, block.setting("independent"))
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert together == 5 * [1]


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


def test_changed_settings_are_refused_until_their_records_are_forgotten(quick, tmp_path):
    assert trained_in(tmp_path, study())[0]
    file, colder = tmp_path / "results.json", study(**{"method.temperature": 2.0})
    before = file.read_bytes()
    words = r"results\.json: method\.temperature = 2\.0: few steps: 'DML' was trained with None \("
    with pytest.raises(SettingError, match=words):
        missing(colder, Results(file, colder))
    with pytest.raises(SettingError, match=words):
        Results(file, colder).add([record("KD", 7, {"a": ("a", 0.5)})])
    assert file.read_bytes() == before
    assert Results(file, colder).forget("DML") == 2
    assert names(missing(colder, Results(file, colder))) == [
        f"few steps: DML, seed {seed}" for seed in (0, 1)
    ]
    assert trained_in(tmp_path, colder)[0]
    with pytest.raises(SettingError, match=r"= None: few steps: 'DML' was trained with 2\.0"):
        missing(study(), Results(file, study()))


def test_forgetting_one_setting_does_not_pardon_another(quick, tmp_path):
    assert trained_in(tmp_path, study())[0]

    def longer(config, seed):
        recipe(config, seed)
        config.duration = "8 steps"

    file, own = tmp_path / "results.json", study(own=longer)
    for setting, left in (("DML", 4), ("independent", 2)):
        assert Results(file, own).forget(setting) == 2
        assert len(json.loads(file.read_text())["records"]) == left
        with pytest.raises(SettingError, match=r"duration = '8 steps': .* trained with '6 steps'"):
            missing(own, Results(file, own))
    assert Results(file, own).forget("KD") == 2
    assert len(missing(own, Results(file, own))) == 6
    assert Results(tmp_path / "none.json", own).forget("KD") == 0


def test_the_command_line_forgets(quick, asked, tmp_path, monkeypatch, capsys):
    assert asked("tiny", "--hours=1") == 0
    monkeypatch.setattr(command_line, "load", lambda name: study(**{"method.temperature": 2.0}))
    assert asked("tiny", "--hours=1") == 2
    assert "tiny.json: method.temperature = 2.0: few steps: 'DML'" in capsys.readouterr().err
    assert len(quick) == 8  # with two looks at the teachers
    assert asked("tiny", "--hours=1", "--forget=DML") == 0
    assert "forgot 2 records of 'DML'" in capsys.readouterr().out
    assert [str(folder.parent.name) for folder, _ in quick[8:]] == ["DML", "DML"]
    # What stayed for its teachers goes, too, or its old result would come back.
    folder = tmp_path / "runs" / "tiny" / "few_steps" / "independent"
    assert (folder / "seed0").is_dir()
    assert asked("tiny", "--forget=independent") == 0 and not folder.exists()


def test_a_list_names_the_study_that_has_changed(quick, asked, monkeypatch, capsys):
    assert asked("tiny", "--hours=1") == 0
    monkeypatch.setattr(command_line, "load", lambda name: study(**{"method.temperature": 2.0}))
    assert asked("--list") == 2
    assert "tiny.json: method.temperature = 2.0" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["3", "3/2", "0/2", "a/b"])
def test_a_share_that_cannot_be(part, asked, capsys):
    with pytest.raises(SystemExit):
        asked("tiny", f"--part={part}")
    assert f"argument --part: '{part}': must be" in capsys.readouterr().err


def test_seeds_at_once_follow_each_other(tmp_path):
    (block,) = study(seeds=(0, 2)).blocks
    with pytest.raises(SettingError, match=r"--seeds-at-once = 2: \(0, 2\) do not follow"):
        Job(block, block.setting("DML"), (0, 2)).config(tmp_path)


def test_records_that_others_wrote_meanwhile_are_kept(tmp_path):
    file, own = tmp_path / "results.json", study()
    one, other = Results(file, own), Results(file, own)
    node = {"a": ("a", 0.5)}
    one.add([record("KD", 1, node), record("KD", 0, node)])
    other.add([record("independent", 1, node)])
    one.add([record("KD", 1, {"a": ("a", 0.75)})])  # again: takes the place of the first
    found = [(r["setting"], r["seed"]) for r in Results(file, own).records]
    assert found == [("independent", 1), ("KD", 0), ("KD", 1)]
    assert one.records[-1]["nodes"]["a"]["accuracy"] == 0.75
    assert one.has("few steps", "independent", 1) and not one.has("few steps", "independent", 0)
    assert not list(tmp_path.glob("*.tmp"))


WRITER = """
import pathlib, sys
from experiments.study.records import Results
from tests.experiments.test_study import record, study

seeds = range(int(sys.argv[2]), 20, 2)
own = study(seeds=tuple(range(20)))
results = Results(pathlib.Path(sys.argv[1]), own)
for seed in seeds:
    results.add([record("DML", seed, {"a": ("a", 0.5)})])
"""


def test_two_processes_lose_no_record(tmp_path):
    file = tmp_path / "results.json"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(file), str(n)], cwd=ROOT)
        for n in (0, 1)
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    records = Results(file, study(seeds=tuple(range(20)))).records
    assert [r["seed"] for r in records] == list(range(20))


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


# Statistics.


def test_the_interval_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(0)
    own, baseline = ({s: float(v) for s, v in enumerate(rng.normal(90, 2, 6))} for _ in range(2))
    found = paired(own, dict(reversed(baseline.items())))
    test = stats.ttest_rel([*own.values()], [*baseline.values()])
    expected = test.confidence_interval(0.95)
    np.testing.assert_allclose((found.low, found.high), (expected.low, expected.high), rtol=1e-12)
    differences = np.subtract([*own.values()], [*baseline.values()])
    np.testing.assert_allclose(found.mean, differences.mean(), rtol=1e-12)
    np.testing.assert_allclose(found.deviation, differences.std(ddof=1), rtol=1e-12)
    assert found.count == 6 and found.told == (test.pvalue < 0.05)


def test_seeds_that_one_lacks_are_left_out():
    own, baseline = {1: 3.0, 2: 5.0, 7: 9.0, 8: 100.0}, {0: -50.0, 1: 2.0, 2: 3.0, 7: 6.0}
    assert paired(own, baseline) == paired({s: own[s] for s in (1, 2, 7)}, baseline)
    assert (paired(own, baseline).mean, paired(own, baseline).count) == (2.0, 3)
    assert paired(own, {3: 1.0}) is None


def test_a_single_seed_has_no_interval():
    found = paired({3: 2.5}, {3: 2.0})
    assert found == Difference(0.5, None, None, None, 1)
    assert not found.told and found.seeds_for(0.5) is None
    assert spread([2.0]).deviation is None and spread([2.0, 4.0]).deviation == np.sqrt(2)


@pytest.mark.parametrize(
    ("values", "told"),
    [((1.0, 1.1, 1.2), True), ((-1.0, -1.1, -1.2), True), ((-1.0, 1.0, 0.5), False)],
)
def test_told_apart_is_an_interval_without_zero(values, told):
    found = paired(dict(enumerate(values)), dict.fromkeys(range(3), 0.0))
    assert found.told is told
    assert (found.low > 0) == (told and values[0] > 0)


@pytest.mark.parametrize(
    ("effect", "power", "seeds"),
    # As G*Power and statsmodels' TTestPower have them.
    [(0.5, 0.8, 34), (1.0, 0.8, 10), (0.8, 0.8, 15), (0.2, 0.8, 199), (0.5, 0.9, 44)],
)
def test_seeds_needed_are_those_of_the_tables(effect, power, seeds):
    for sign in (1, -1):
        assert seeds_needed(2.0, sign * 2 * effect, power=power) == seeds
    assert Difference(9.0, 0.0, 1.0, 2.0, 4).seeds_for(2 * effect) == seeds_needed(1, effect)
    assert seeds_needed(0.0, 0.5) == 2


def test_seeds_needed_fall_with_the_effect():
    """Also where SciPy's noncentral t is NaN on one side."""
    found = [seeds_needed(1.0, effect) for effect in np.geomspace(0.1, 1000, 60)]
    assert found == sorted(found, reverse=True) and found[-1] == 2
    # Chances to find it by simulation: 0.556 and 0.999, 0.994.
    assert (seeds_needed(1.0, 6.93), seeds_needed(1.0, 25.0)) == (3, 2)


def test_seeds_needed_find_it_in_four_of_five_studies():
    rng = np.random.default_rng(0)
    seeds = seeds_needed(0.7, 0.6)
    for count, least, most in ((seeds, 0.79, 0.86), (seeds - 1, 0.7, 0.81)):
        draws = rng.normal(0.6, 0.7, size=(20_000, count))
        found = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
        assert least < found < most


# Tables, pages and figures.


def cells(markdown):
    """The rows of a table by heading, and what stands below it."""
    table, _, below = markdown.partition("\n\n")
    head, _, *lines = ([c.strip() for c in row.strip("|").split("|")] for row in table.split("\n"))
    return [dict(zip(head, line, strict=True)) for line in lines], below


def block_of(*names, seeds=3, **options):
    every = tuple(Setting(name, "") for name in names)
    return Block("300 labels", every, recipe, seeds=tuple(range(seeds)), **options)


def table_of(block, *records):
    return cells(tables.markdown(block, Records(list(records))))


def three(setting, *accuracies, **options):
    return [
        record(setting, seed, {"a": ("a", own)}, "300 labels", **options)
        for seed, own in enumerate(accuracies)
    ]


def test_a_table_has_means_deviations_and_differences():
    records = three("independent", 0.90, 0.91, 0.92) + three("AFD", 0.91, 0.925, 0.93)
    rows, below = table_of(block_of("independent", "AFD"), *records)
    assert below == "3 seeds each."
    accuracy, minus = "test accuracy, %", "minus independent, points (95 %)"
    assert [row[accuracy] for row in rows] == ["91.00 ± 1.00", "92.17 ± 1.04"]
    # 1.0, 1.5, 1.0: mean 1.167, deviation 0.289, and t = 4.303 for two degrees of freedom.
    assert [row[minus] for row in rows] == ["", "**+1.17 (+0.45 to +1.88)**"]
    assert [row["300 labels"] for row in rows] == ["independent", "AFD"]
    assert [row["network"] for row in rows] == ["a", "a"]
    assert [row["ensemble, %"] for row in rows] == ["", ""]
    needed = [row["seeds to see 0.5"] for row in rows]
    assert needed == ["", str(seeds_needed(np.std([1, 1.5, 1], ddof=1), 0.5))]
    rows, _ = table_of(block_of("independent", "AFD", matters=2), *records)
    assert rows[1]["seeds to see 2"] == "3"
    worse = three("independent", 0.90, 0.91, 0.92) + three("AFD", 0.91, 0.89, 0.91)
    assert table_of(block_of("independent", "AFD"), *worse)[0][1][minus] == (
        "-0.67 (-4.46 to +3.13)"
    )


def test_branches_and_equal_networks_are_averaged_within_a_seed():
    branches = [
        {"branch 0": ("a", 0.5), "branch 1": ("a", 0.7)},
        {"branch 0": ("a", 0.9), "branch 1": ("a", 0.7)},
    ]
    records = [
        record("ONE", seed, nodes, "300 labels", ensemble=0.75 + seed / 10)
        for seed, nodes in enumerate(branches)
    ]
    records += three("independent", 0.5, 0.6)
    pair = {"a": ("a", 0.4), "b": ("b", 0.9), "a_1": ("a", 0.6)}
    records += [record("DML", 0, pair, "300 labels", ensemble=0.8)]
    records += [record("DML", 0, {"teacher": ("c", 0.9)}, "another table")]
    records[0]["nodes"]["twin"] = {"network": "a alone", "role": "twin", "accuracy": 0.1}
    rows, _ = table_of(block_of("independent", "ONE", "DML", seeds=2), *records)
    kept = ("300 labels", "network", "test accuracy, %", "ensemble, %")
    assert [tuple(row[k] for k in kept) for row in rows] == [
        ("independent", "a", "55.00 ± 7.07", ""),
        ("ONE", "a", "70.00 ± 14.14", "80.00 ± 7.07"),
        ("DML", "a", "50.00", "80.00"),
        ("DML", "b", "90.00", "80.00"),
    ]
    minus = [row["minus independent, points (95 %)"] for row in rows]
    assert minus == ["", "+15.00 (-48.53 to +78.53)", "+0.00", ""]


def test_fewer_seeds_than_planned_are_said():
    block = block_of("independent", "AFD", "DML")
    records = three("independent", 0.9, 0.9, 0.9) + three("AFD", 0.9)
    rows, below = table_of(block, *records)
    assert below == "3 seeds each planned; so far only 1 of AFD; 0 of DML."
    assert [row["300 labels"] for row in rows] == ["independent", "AFD"]
    assert table_of(block, *records[:1], *records[3:])[1] == (
        "3 seeds each planned; so far only 1 of independent, AFD; 0 of DML."
    )


def test_a_page_gets_its_tables_and_is_up_to_date():
    text = (
        "Before.\n<!-- few_labels_recipe: 300 labels, validation images -->\nold\n<!-- end -->\nA"
    )
    filled = page.filled(text)
    assert page.filled(filled) == filled != text and "old" not in filled
    assert filled.startswith("Before.\n<!-- few_labels_recipe: 300 labels, validation images -->\n")
    assert filled.endswith("\n\n4 seeds each.\n\n<!-- end -->\nA")
    rows, _ = cells(filled.split("-->\n\n")[1])
    assert len(rows) == 20 and {row["network"] for row in rows} == {"resnet8", "resnet14"}
    text = page.PAGE.read_text()
    assert page.filled(text) == text


def test_figures_are_drawn(tmp_path):
    block = block_of("independent", "AFD", "DML", "ONE")
    records = three("independent", 0.90, 0.91, 0.92) + three("AFD", 0.91, 0.925, 0.93)
    records += three("DML", 0.8)
    for own in records[3:6]:
        points = [(0.5, 0.25 * own["seed"]), (1.0, 0.5)]
        own["curve"] = [
            {"epoch": epoch, "similarity": {"a, b": {"cka": cka}}} for epoch, cka in points
        ]
    own = Study("", (block, block_of("independent", "AFD")))
    figures.differences(own, Records(records), tmp_path / "differences.svg")
    figures.similarity(block, Records(records), tmp_path / "similarity.svg")
    figures.similarity(block, Records([]), tmp_path / "nothing.svg")
    for name in ("differences", "similarity"):
        assert (tmp_path / f"{name}.svg").read_text().startswith(SVG)
    assert not (tmp_path / "nothing.svg").exists()
    assert figures.over_time(block, Records(records), "AFD", "cka") == [(0.5, 0.25), (1.0, 0.5)]
    assert figures.over_time(block, Records(records), "AFD", "l1") == []
    records[3]["curve"][0]["similarity"]["a, c"] = {"cka": 9.0}  # of three networks: left out
    assert figures.over_time(block, Records(records), "AFD", "cka")[0] == (0.5, 0.375)
    same = three("independent", 0.9, 0.9, 0.9) + three("AFD", 0.9, 0.9, 0.9)
    figures.differences(own, Records(same), tmp_path / "same.svg")
    assert (tmp_path / "same.svg").read_text().startswith(SVG)
    figures.differences(own, Records(records[:3]), tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


def test_figures_show_the_own_method_and_what_lies_outside(tmp_path):
    block = block_of("independent", "AFD", "DML", "ONE")
    records = three("independent", 0.90, 0.91, 0.92) + three("AFD", 0.91, 0.925, 0.93)
    records += three("DML", 0.91, 0.92, 0.93) + three("ONE", 0.1, 0.15, 0.1)
    for name in ("one", "two"):
        figures.differences(Study("", (block,)), Records(records), tmp_path / f"{name}.svg")
    text = (tmp_path / "one.svg").read_text()
    assert text == (tmp_path / "two.svg").read_text()
    bold = re.findall(r"font-weight: 700[^>]*>([^<]*)</text>", text)
    assert bold == ["AFD"]
    assert ">DML</text>" in text and "-79.33 (" in text  # in words: beyond the axis


# Gathering runs of no study.


@pytest.fixture
def runs(trained, tmp_path):
    """Two networks alone, as of one group: copies of the runs of both seeds."""
    folder = trained / "runs" / "few_steps" / "independent"
    return [shutil.copytree(folder / f"seed{s}", tmp_path / f"alone{s}") for s in (0, 1)]


@pytest.fixture
def others(runs, tmp_path):
    """As of another group: other method, other accuracies."""
    found = []
    for own in runs:
        other = shutil.copytree(own, tmp_path / own.name.replace("alone", "together"))
        change(other, "config.json", method={"name": "dml", "temperature": 7.0})
        networks = json.loads((other / "summary.json").read_text())["networks"]
        networks[0]["test_accuracy"] += 0.25
        networks[1]["test_accuracy"] = 0.5
        change(other, "summary.json", networks=networks)
        found.append(other)
    return found


def change(folder, name, **fields):
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | fields))


def test_runs_beside_each_other(runs, others, trained, tmp_path, capsys):
    groups = [f"one={runs[1]},{runs[0]}", f"two={others[0]},{others[1]}"]
    assert gather([f"{tmp_path}/results/v1.2", *groups]) == 0
    rows, below = cells(capsys.readouterr().out)
    assert below == "2 seeds each.\n"
    assert [(row["v1.2"], row["network"]) for row in rows] == [
        (group, f"tests.tiny:{network}")
        for group in ("one", "two")
        for network in ("Tiny", "Wider")
    ]
    records = Results(trained / "results.json", study()).of("few steps", "independent")
    tiny, wider = ([100 * r["nodes"][n]["accuracy"] for r in records] for n in ("Tiny", "Wider"))
    expected = [tables.percent(spread(values)) for values in (tiny, wider, [50.0, 50.0])]
    found = [row["test accuracy, %"] for row in rows]
    assert [found[0], found[1], found[3]] == expected
    minus = [row["minus one, points (95 %)"] for row in rows]
    assert minus[:3] == ["", "", "**+25.00 (+25.00 to +25.00)**"]
    assert minus[3].startswith(f"{50 - np.mean(wider):+.2f} (")
    result = json.loads((tmp_path / "results" / "v1.2.json").read_text())
    assert [(r["setting"], r["seed"]) for r in result["records"]] == [
        ("one", 1),
        ("one", 0),
        ("two", 0),
        ("two", 1),
    ]
    settings = result["settings"]["v1.2"]
    assert settings["two"] == settings["one"] | {"method.name": "dml", "method.temperature": 7.0}
    assert settings["one"]["duration"] == "6 steps"
    assert not {"seed", "seeds", "teachers", "data.data_dir"} & {*settings["one"]}
    assert (tmp_path / "results" / "v1.2.svg").read_text().startswith(SVG)


def test_one_group_is_a_table_too(runs, tmp_path, capsys):
    assert gather([f"{tmp_path}/pair", f"AFD={runs[0]}"]) == 0
    assert len(cells(capsys.readouterr().out)[0]) == 2
    assert (tmp_path / "pair.json").exists() and not (tmp_path / "pair.svg").exists()
    assert gather([f"{tmp_path}/pair"]) == gather([f"{tmp_path}/pair", str(runs[0])]) == 2
    assert "experiments.study.gather" in capsys.readouterr().out


def test_runs_that_do_not_belong_together(runs, others, tmp_path, capsys):
    def refused(*groups):
        assert gather([f"{tmp_path}/pair", *groups]) == 2
        assert not (tmp_path / "pair.json").exists()
        return capsys.readouterr().err

    one, other = runs[0], others[0]
    assert "must have different seeds" in refused(f"a={one},{one}")
    assert f"RUN_DIR = '{tmp_path}': no finished run" in refused(f"a={one},{tmp_path}")
    change(runs[1], "config.json", batch_size=33)
    words = f"config.batch_size = 33: the run in {one} has 16"
    assert words in refused(f"a={one},{runs[1]}")
    change(runs[1], "config.json", batch_size=16)
    words = "b: seeds = [1]: differs from a's, [0]; train all alike"
    assert words in refused(f"a={one}", f"b={others[1]}")
    config = json.loads((other / "config.json").read_text())

    logit = config["optimizers"]["logit"] | {"learning_rate": 9.0}
    for field, value, words in (
        ("batch_size", 33, "b: batch_size = 33: differs from a's, 16; train all alike"),
        ("duration", "7 steps", "b: duration = '7 steps': differs from a's, '6 steps'"),
        ("data", config["data"] | {"flip": True}, "b: data = {"),
        ("optimizers", config["optimizers"] | {"logit": logit}, "b: optimizers.logit = {"),
    ):
        change(other, "config.json", **{field: value})
        assert words in refused(f"a={one}", f"b={other}")
        change(other, "config.json", **{field: config[field]})
    change(other, "data.json", sha256="of other images")
    words = f"RUN_DIR = '{other}': was trained on other data than {one}"
    assert words in refused(f"a={one}", f"b={other}")
    taught = {"name": "resnet14", "method": "kd", "folder": "", "sha256": ""}
    (runs[1] / "teachers.json").write_text(json.dumps({"teachers": [taught]}))
    words = f"RUN_DIR = '{runs[1]}': was taught by ['resnet14 by kd'], {one} by []"
    assert words in refused(f"a={one},{runs[1]}")


def test_where_data_lie_and_who_reads_them_is_no_difference(runs, others, tmp_path):
    data = json.loads((runs[0] / "config.json").read_text())["data"]
    change(others[0], "config.json", data=data | {"data_dir": "/elsewhere", "workers": 3})
    assert gather([f"{tmp_path}/pair", f"a={runs[0]}", f"b={others[0]}"]) == 0


def test_a_frozen_teacher_is_in_the_first_evaluation_only(runs):
    folder = runs[0]
    teacher = {"name": "teacher", "network": "teacher", "role": "teacher", "parameters": 7}
    change(folder, "summary.json", others=[teacher | {"test_accuracy": 0.75}])
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    first, last = (r for r in records if r["kind"] == "test")
    first["accuracy"]["teacher"], first["cross_entropy"]["teacher"] = 0.75, 1.25
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (block,) = study().blocks
    (found,) = records_of(folder, block, block.settings[0])
    node = found["nodes"]["teacher"]
    assert (node["accuracy"], node["cross_entropy"], node["role"]) == (0.75, 1.25, "teacher")
    assert ["teacher" in p["accuracy"] for p in found["curve"]] == [True, False]
    assert tables.by_network([found]).keys() == {"tests.tiny:Tiny", "tests.tiny:Wider"}
    for name in ("Tiny", "Wider"):
        assert found["nodes"][name]["accuracy"] == round(last["accuracy"][name], 6)
        assert found["nodes"][name]["cross_entropy"] == round(last["cross_entropy"][name], 6)
