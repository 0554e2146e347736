"""The results of studies: what makes records invalid, how they are forgotten, and who may write."""

import dataclasses
import json
import subprocess
import sys

import pytest

from afd_jax.errors import SettingError
from experiments.study.records import Results
from experiments.study.runner import missing
from tests.experiments.small_study import names, recipe, record, study, trained_in
from tests.running import ROOT


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
    assert Results(file, colder).forget("DML") == {"DML": 2}
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
    for setting, left in (("DML", 4), ("KD", 2)):
        assert Results(file, own).forget(setting) == {setting: 2}
        assert len(json.loads(file.read_text())["records"]) == left
        with pytest.raises(SettingError, match=r"duration = '8 steps': .* trained with '6 steps'"):
            missing(own, Results(file, own))
    assert Results(file, own).forget("independent") == {"independent": 2, "KD": 0}
    assert len(missing(own, Results(file, own))) == 6
    assert Results(tmp_path / "none.json", own).forget("KD") == {"KD": 0}
    with pytest.raises(SettingError, match="--forget = 'DM': did you mean 'DML'"):
        Results(file, own).forget("DM")


def test_pupils_are_forgotten_with_their_teacher(quick, tmp_path):
    assert trained_in(tmp_path, study())[0]
    results = Results(tmp_path / "results.json", study())
    assert results.forget("independent") == {"independent": 2, "KD": 2}
    assert {r["setting"] for r in results.records} == {"DML"}


def test_records_of_settings_that_a_study_lacks_stay(quick, tmp_path):
    """As those of a newer checkout, when an older one writes."""
    assert trained_in(tmp_path, study())[0]
    file, own = tmp_path / "results.json", study()
    (block,) = own.blocks
    fewer = dataclasses.replace(block, settings=block.settings[:1])
    renamed = dataclasses.replace(block, name="few")
    for other in (fewer, renamed):
        before = json.loads(file.read_text())
        stay = [r for r in before["records"] if r["seed"] < 5]
        Results(file, dataclasses.replace(own, blocks=(other,))).add(
            [record("independent", 5, {"a": ("a", 0.5)}, other.name)]
        )
        after = json.loads(file.read_text())
        assert [r for r in after["records"] if r["seed"] < 5] == stay and len(stay) == 6
        stated = {name: own for name, own in after["settings"].items() if own}
        assert before["settings"]["few steps"].items() <= stated["few steps"].items()
    assert missing(own, Results(file, own)) == []


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
from tests.experiments.small_study import record, study

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
