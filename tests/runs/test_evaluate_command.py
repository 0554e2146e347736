"""`afd-eval`: what it prints and writes, and that its accuracies are those of the summary."""

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from afd_jax.commands import evaluate
from afd_jax.runs import predictions
from tests.running import command, ctrl_c_after, damage, one_line

NODES = ["Tiny", "Wider", "Tiny alone", "Wider alone", "ensemble", "ensemble alone"]


def main(arguments):
    """The command, which imports networks of the tests' own."""
    return evaluate.main([*arguments, "--trust"])


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A finished run of two seeds."""
    workdir = tmp_path_factory.mktemp("several")
    assert command(workdir, "--config.seeds=2", "--config.duration=2 epochs") == 0
    return workdir


def noted(run):
    found = {n["name"]: n["test_accuracy"] for n in [*run["networks"], *run["twins"]]}
    found["ensemble"] = run["ensemble_test_accuracy"]
    return found | {"ensemble alone": run["twin_ensemble_test_accuracy"]}


def test_accuracies_are_exactly_those_of_the_summary(finished, several, tmp_path, capsys):
    for workdir in (finished, several):
        assert main([str(workdir), f"--json={tmp_path}/all.json"]) == 0
        assert "accuracies: equal to summary.json\n" in capsys.readouterr().out
        summary = json.loads((workdir / "summary.json").read_text())
        runs = json.loads((tmp_path / "all.json").read_text())["runs"]
        for run, own in zip(runs, summary.get("runs", [summary]), strict=True):
            assert run["seed"] == own["seed"]
            assert {n: v["accuracy"] for n, v in run["nodes"].items()} == noted(own)


def test_the_loss_is_that_of_the_last_evaluation(finished, tmp_path):
    assert main([str(finished), f"--json={tmp_path}/all.json"]) == 0
    nodes = json.loads((tmp_path / "all.json").read_text())["runs"][0]["nodes"]
    records = map(json.loads, (finished / "metrics.jsonl").read_text().splitlines())
    *_, last = (r for r in records if r["kind"] == "test")
    for name, value in last["cross_entropy"].items():
        np.testing.assert_allclose(nodes[name]["nll"], value, rtol=1e-5)


def test_the_tables(several, capsys):
    assert main([str(several), "--per-class"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{several}, step 12: 192 test images"
    assert lines[1].split() == ["network", "accuracy", "top-5", "NLL", "ECE"]
    summary = json.loads((several / "summary.json").read_text())
    tiny = summary["networks"][0]
    mean, deviation = 100 * tiny["test_accuracy"], 100 * tiny["test_accuracy_deviation"]
    assert lines[2].split()[:4] == ["Tiny", f"{mean:.2f}", "±", f"{deviation:.2f}"]
    assert lines[8] == "mean and deviation of the seeds 0, 1"
    assert lines[10].split()[:4] == ["class", "examples", "Tiny", "Wider"]
    assert sum(int(line.split()[1]) for line in lines[11:21]) == 192
    capsys.readouterr()
    assert main([str(several), "--seed=1", "--node=Wider", "--split=heldout"]) == 0
    lines = capsys.readouterr().out.splitlines()
    own = summary["runs"][1]["networks"][1]["heldout_accuracy"]
    assert lines[0].endswith("step 12, seed 1: 192 heldout images")
    assert lines[2].split()[:2] == ["Wider", f"{100 * own:.2f}"]
    assert lines[3:] == ["accuracies: equal to summary.json"]


def test_predictions_in_three_formats(finished, tmp_path, capsys):
    for suffix in ("csv", "jsonl", "npz"):
        assert main([str(finished), f"--predictions={tmp_path}/p.{suffix}"]) == 0
    with np.load(tmp_path / "p.npz") as file:
        arrays = dict(file)
    assert arrays["probabilities"].shape == (1, 6, 192, 10)
    assert [*arrays["networks"]] == NODES and [*arrays["seeds"]] == [0]
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    more = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert len(rows) == len(more) == 6 * 192
    accuracy = dict.fromkeys(NODES, 0.0)
    for i, (row, own) in enumerate(zip(rows, more, strict=True)):
        p = arrays["probabilities"][0, i // 192, i % 192]
        assert row["network"] == own["network"] == NODES[i // 192]
        assert (int(row["example"]), int(row["label"])) == (i % 192, arrays["labels"][i % 192])
        assert int(row["predicted"]) == int(own["predicted"]) == p.argmax()
        np.testing.assert_allclose([float(row["probability"]), own["probability"]], p.max(), 1e-6)
        np.testing.assert_allclose(own["probabilities"], p, 1e-6)
        accuracy[row["network"]] += (row["label"] == row["predicted"]) / 192
    summary = json.loads((finished / "summary.json").read_text())
    assert accuracy == pytest.approx(noted(summary))
    capsys.readouterr()
    assert main([str(finished), "--predictions=p.txt"]) == 2
    assert "--predictions = 'p.txt': must end in .csv, .jsonl, .npz" in one_line(capsys)


def test_images_without_labels(finished, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    for i in range(22):
        image.new("L", (8, 8), 10 * i).save(tmp_path / f"{i:02}.png")
    images = f"--images={tmp_path}"
    assert main([str(finished), images, f"--predictions={tmp_path}/p.csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"step 24, seed 0: 22 images of {tmp_path}")
    assert re.match(r"00\.png +\d \(\d+\.\d %\) ", lines[2])
    assert lines[22] == "... and 2 more"
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 22 * 6 and {row["label"] for row in rows} == {""}
    (tmp_path / "03.png").write_bytes(b"no image")
    odd = os.fsdecode("\u00df.png".encode("latin-1"))
    (tmp_path / "04.png").rename(tmp_path / odd)
    assert main([str(finished), images, f"--predictions={tmp_path}/p.csv"]) == 1
    assert one_line(capsys).startswith("error: 1 image cannot be read: 03.png (cannot identify")
    with (tmp_path / "p.csv").open() as file:
        rest = [row["example"] for row in csv.DictReader(file)]
    assert len(rest) == 21 * 6 and "03.png" not in rest and r"\udcdf.png" in rest
    assert main([str(finished), images, "--per-class"]) == 2
    assert "--per-class = True: needs labels" in one_line(capsys)


@pytest.mark.parametrize("examples, code", [(1, 0), (40, 1)])
def test_a_summary_that_says_otherwise(examples, code, copied, monkeypatch, capsys):
    """One example more may be rounding where predictions are nearly undecided; 40 are not."""
    monkeypatch.setattr("afd_jax.reports.evaluation._NEAR", 0.002)
    summary = json.loads((copied / "summary.json").read_text())
    summary["networks"][0]["test_accuracy"] += examples / 192
    (copied / "summary.json").write_text(json.dumps(summary))
    assert main([str(copied)]) == code
    captured = capsys.readouterr()
    words = captured.err if code else captured.out
    assert ("error: accuracies differ from" if code else "equal to summary.json but for") in words
    assert f" ({examples} of 192 examples; " in words and words.count("Tiny: ") == 1


def test_what_the_summary_does_not_hold_is_not_called_equal(copied, capsys):
    summary = json.loads((copied / "summary.json").read_text())
    del summary["ensemble_test_accuracy"]
    (copied / "summary.json").write_text(json.dumps(summary))
    assert main([str(copied), "--network=ensemble"]) == 0
    assert "not compared: summary.json has no test accuracy for the" in capsys.readouterr().out


def test_an_older_checkpoint_is_not_compared(copied, capsys):
    damage(copied / "checkpoints" / "24")
    assert main([str(copied)]) == 1
    captured = capsys.readouterr()
    assert "step 18, seed 0" in captured.out and "summary.json is of step 24" in captured.err
    assert main([str(copied), "--split=train"]) == 0


def test_a_run_that_was_interrupted(tmp_path, monkeypatch, capsys):
    ctrl_c_after(monkeypatch, 8)
    assert command(tmp_path) == 130
    capsys.readouterr()
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    # The signal comes while step 8 is shown; the run stops after the next one.
    assert ", step 9, seed 0: " in printed and "the run is not finished" in printed


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--split=tets"], "split = 'tets': did you mean 'test'"),
        (["--network=Tinny"], "--network = 'Tinny': did you mean 'Tiny'"),
        (["--seed=two"], "--seed = 'two': must be a whole number, or all"),
        (["--seed=7"], "seed = 7: the run has the seeds 0 to 0"),
        (["--json=/nowhere/a.json"], "--json = '/nowhere/a.json': cannot be written"),
        (["--predictions=/nowhere/a.csv"], "--predictions = '/nowhere/a.csv': cannot be written"),
        (["--json=."], "--json = '.': is a folder; name a file"),
        (["--images=.", "--split=test"], "--split = 'test': is of the run's data, which --images"),
        (["--images=.", "--data-dir=x"], "--data-dir = 'x': is of the run's data, which --images"),
    ],
)
def test_a_mistake_is_one_line(arguments, words, finished, capsys, monkeypatch):
    """Before anything is compiled."""
    monkeypatch.setattr(predictions, "_program", lambda *_: pytest.fail("too late"))
    assert main([str(finished), *arguments]) == 2
    assert words in one_line(capsys)


def test_help_answers_without_jax():
    code = "import sys; sys.modules['jax'] = None\n"
    code += "from afd_jax.commands.evaluate import main; main(['-h'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "afd-eval runs/digits" in done.stdout
