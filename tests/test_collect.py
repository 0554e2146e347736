"""Gathering runs: means over seeds, and refusing runs that do not belong together."""

import json
import shutil

import numpy as np
import pytest

from experiments.collect import main


@pytest.fixture
def another_seed(finished, tmp_path):
    """A second run, made from the first one's files."""
    folder = shutil.copytree(finished, tmp_path / "seed1")
    for name in ("config.json", "summary.json"):
        content = json.loads((folder / name).read_text()) | {"seed": 1}
        if name == "summary.json":
            content["networks"][0]["test_accuracy"] += 0.25
        (folder / name).write_text(json.dumps(content))
    return folder


def test_mean_and_deviation_over_seeds(finished, another_seed, tmp_path, capsys):
    assert main([f"{tmp_path}/v1.2/pair", str(finished), str(another_seed)]) == 0
    result = json.loads((tmp_path / "v1.2" / "pair.json").read_text())
    first = json.loads((finished / "summary.json").read_text())["networks"][0]["test_accuracy"]
    accuracy = result["test_accuracy"]["0 tests.tiny:Tiny"]
    np.testing.assert_allclose(accuracy["mean"], first + 0.125)
    np.testing.assert_allclose(accuracy["std"], 0.25 / np.sqrt(2))
    assert [run["seed"] for run in result["runs"]] == [0, 1]
    assert (tmp_path / "v1.2" / "pair.png").read_bytes().startswith(b"\x89PNG")
    assert "0 tests.tiny:Tiny" in capsys.readouterr().out


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
