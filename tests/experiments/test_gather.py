"""Gathering runs of no study."""

import json
import shutil

import numpy as np
import pytest

from afd_jax.reports.paired import spread
from experiments.study import tables
from experiments.study.gather import main as gather
from experiments.study.records import Results, records_of
from tests.experiments.small_study import SVG, cells, change, study


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


def test_names_that_are_taken(tmp_path, capsys):
    assert gather([f"{tmp_path}/pair", "A=one", "A=two"]) == 2
    assert "GROUP = 'A': is there twice; name all its runs at once" in capsys.readouterr().err
    assert gather([f"{tmp_path}/few_labels", "A=one"]) == 2
    assert "few_labels': is the file of a study; choose another name" in capsys.readouterr().err


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


def test_a_run_too_short_for_a_line_of_the_log_has_a_record(runs):
    folder = runs[0]
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(x for x in lines if '"kind": "train"' not in x))
    (block,) = study().blocks
    (found,) = records_of(folder, block, block.settings[0])
    assert not any("train_accuracy" in node for node in found["nodes"].values())
