"""Gathering runs: means over seeds, and refusing runs that do not belong together."""

import json
import shutil

import numpy as np
import pytest

from experiments.collect import main
from experiments.compare import main as compare
from experiments.compare import rows


@pytest.fixture
def another_seed(finished, tmp_path):
    """A second run, made from the first one's files."""
    folder = shutil.copytree(finished, tmp_path / "seed1")
    for name in ("config.json", "summary.json"):
        content = json.loads((folder / name).read_text()) | {"seed": 1}
        if name == "summary.json":
            content["networks"][0]["test_accuracy"] += 0.25
        (folder / name).write_text(json.dumps(content))
    metrics = folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"seed": 0', '"seed": 1'))
    return folder


def test_mean_and_deviation_over_seeds(finished, another_seed, tmp_path, capsys):
    assert main([f"{tmp_path}/v1.2/pair", str(finished), str(another_seed)]) == 0
    result = json.loads((tmp_path / "v1.2" / "pair.json").read_text())
    first = json.loads((finished / "summary.json").read_text())["networks"][0]["test_accuracy"]
    accuracy = result["test_accuracy"]["Tiny"]
    np.testing.assert_allclose(accuracy["mean"], first + 0.125)
    np.testing.assert_allclose(accuracy["std"], 0.25 / np.sqrt(2))
    assert [run["seed"] for run in result["runs"]] == [0, 1]
    assert (tmp_path / "v1.2" / "pair.png").read_bytes().startswith(b"\x89PNG")
    assert [*result["test_accuracy"]] == ["Tiny", "Wider", "Tiny alone", "Wider alone"]
    assert "Tiny alone" in capsys.readouterr().out


def test_runs_that_do_not_belong_together(finished, another_seed, tmp_path, capsys):
    target = f"{tmp_path}/pair"
    assert main([target, str(finished), str(finished)]) == 2
    assert "must have different seeds" in capsys.readouterr().err
    config = json.loads((another_seed / "config.json").read_text()) | {"batch_size": 33}
    (another_seed / "config.json").write_text(json.dumps(config))
    assert main([target, str(finished), str(another_seed)]) == 2
    assert "config.batch_size = 33: the run in" in capsys.readouterr().err
    assert main([target, str(tmp_path)]) == 2
    assert "no finished run" in capsys.readouterr().err
    assert not (tmp_path / "pair.json").exists()


def test_methods_beside_each_other(finished, another_seed, tmp_path, capsys):
    other = shutil.copytree(another_seed, tmp_path / "other")
    summary = json.loads((other / "summary.json").read_text()) | {"seed": 0}
    summary["networks"][1]["test_accuracy"] = 0.5
    (other / "summary.json").write_text(json.dumps(summary))
    config = json.loads((other / "config.json").read_text()) | {"seed": 0}
    (other / "config.json").write_text(json.dumps(config))
    target = tmp_path / "both"
    assert compare([str(target), f"one={finished}", f"two={other}"]) == 0
    result = json.loads(target.with_suffix(".json").read_text())
    two = result["methods"]["two"]["networks"]
    assert two["tests.tiny:Wider"] == {"mean": 0.5, "std": None, "values": [0.5]}
    assert "| two | tests.tiny:Wider | 50.00 % |" in capsys.readouterr().out
    assert target.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

    assert compare([str(target), f"one={finished}", f"two={another_seed}"]) == 2
    assert "two: seeds = [1]: differs from one's, [0]" in capsys.readouterr().err
    (other / "config.json").write_text(json.dumps(config | {"batch_size": 33}))
    assert compare([str(target), f"one={finished}", f"two={other}"]) == 2
    assert "two: batch_size = 33: differs from one's, 32" in capsys.readouterr().err


def test_a_frozen_teacher_is_in_the_first_evaluation_only(finished, tmp_path):
    """It has one accuracy; the figure draws it over all epochs."""
    folder = shutil.copytree(finished, tmp_path / "taught")
    summary = json.loads((folder / "summary.json").read_text())
    teacher = {"name": "teacher", "role": "teacher", "of": None, "test_accuracy": 0.75}
    (folder / "summary.json").write_text(json.dumps(summary | {"others": [teacher]}))
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    next(r for r in records if r["kind"] == "test")["accuracy"]["teacher"] = 0.75
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert main([f"{tmp_path}/taught", str(folder)]) == 0
    result = json.loads((tmp_path / "taught.json").read_text())
    assert result["test_accuracy"]["teacher"]["values"] == [0.75]
    assert len(result["curves"][0]) > 1
    assert (tmp_path / "taught.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("networks", "nodes", "expected"),
    [
        (["a", "a", "b"], ["a", "a_1", "b"], ["a", "b"]),
        (["p.m:A", "p.m:A", "b"], ["A", "A_1", "b"], ["p.m:A", "b"]),
        (["a"], ["branch 0", "branch 1", "leader"], ["a", "a leader"]),
    ],
)
def test_networks_of_one_architecture_are_averaged_within_a_seed(networks, nodes, expected):
    """So are the branches of one network, but for a leader."""
    runs = [
        {
            "seed": seed,
            "networks": [
                {"name": name, "test_accuracy": accuracy}
                for name, accuracy in zip(nodes, own, strict=True)
            ],
        }
        for seed, own in enumerate(((0.1, 0.3, 0.9), (0.4, 0.6, 0.8)))
    ]
    result = {"config": {"networks": networks}, "runs": runs, "ensemble_test_accuracy": None}
    found = rows(result)["networks"]
    assert [*found] == expected
    np.testing.assert_allclose(found[expected[0]]["values"], [0.2, 0.5])
    assert found[expected[1]]["values"] == [0.9, 0.8]
