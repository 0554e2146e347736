"""Whole runs: what they leave, that they continue bit-equal, on several devices and hosts."""

import contextlib
import json
import shutil

import jax
import numpy as np
import pytest

from afd_jax.reports.terminal import Progress
from afd_jax.runs import report, trainer
from afd_jax.runs.assemble import assemble
from afd_jax.runs.metrics import Window
from afd_jax.runs.overrides import read_config
from afd_jax.runs.trainer import train
from tests.running import CONFIG, ROOT, SETTINGS, command, ctrl_c_after, final_state, lines


def test_a_run_leaves_what_it_promises(finished):
    assert {p.name for p in finished.iterdir()} == {
        ".lock",
        "config.json",
        "data.json",
        "graph.json",
        "metrics.jsonl",
        "checkpoints",
        "summary.json",
        "curves.png",
    }
    summary = json.loads((finished / "summary.json").read_text())
    assert [n["name"] for n in summary["networks"]] == ["Tiny", "Wider"]
    assert [n["parameters"] for n in summary["networks"]] == [4 * 9 + 8 + 50, 54 + 12 + 70]
    assert [n["name"] for n in summary["twins"]] == ["Tiny alone", "Wider alone"]
    assert (summary["steps"], summary["seed"], summary["epochs"]) == (24, 0, 4)
    for key in ("compile_seconds", "train_seconds", "images_per_second", "ensemble_test_accuracy"):
        assert summary[key] > 0
    assert summary["jax_version"] == jax.__version__ and "cpu" in summary["device"]

    records = lines(finished)
    test = [r for r in records if r["kind"] == "test"]
    heldout = [r for r in records if r["kind"] == "heldout"]
    assert [r["epoch"] for r in test] == [1, 2, 3, 4]
    for network in summary["networks"]:
        name = network["name"]
        # The last epoch, not the best.
        assert network["test_accuracy"] == test[-1]["accuracy"][name]
        best = max(r["accuracy"][name] for r in heldout)
        assert best in [
            r["accuracy"][name] for r in heldout if r["epoch"] == network["best_heldout_epoch"]
        ]
    # Six steps of 32 in an epoch and a line every four: windows of one length, whatever ends.
    assert [r["step"] for r in records if r["kind"] == "train"] == [4, 8, 12, 16, 20, 24]
    assert "Tiny/loss/generator" in records[0] and "Tiny alone/loss/cross_entropy" in records[0]
    assert "Tiny alone/loss/distillation" not in records[0]
    assert all(
        r["Tiny/output_gradient_norm/generator"] > 0 for r in records if r["kind"] == "train"
    )
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_in_a_bucket_is_called_by_its_address(tmp_path, monkeypatch, finished, capsys):
    local = shutil.copytree(finished, tmp_path / "local")
    monkeypatch.setattr(trainer, "mirrored", lambda _: contextlib.nullcontext(local))
    monkeypatch.setattr(report, "at_hand", lambda _: local)
    train(read_config(CONFIG, SETTINGS), "s3://bucket/run")
    said = capsys.readouterr().out
    assert said.startswith("s3://bucket/run is finished; remove it") and str(local) not in said
    (run,) = report.gather(["s3://bucket/run"], images=False)
    assert run.folder == "s3://bucket/run"


def test_training_lowers_the_loss(finished):
    records = lines(finished)
    losses = [r["Tiny/loss/cross_entropy"] for r in records if r["kind"] == "train"]
    assert losses[-1] < losses[0]


def test_the_same_command_says_that_it_is_finished(finished, capsys):
    before = (finished / "metrics.jsonl").read_bytes()
    assert command(finished) == 0
    assert "is finished" in capsys.readouterr().out
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_ctrl_c_and_the_same_command_end_bit_equal(finished, tmp_path, monkeypatch, capsys):
    ctrl_c_after(monkeypatch, 8)
    assert command(tmp_path) == 130
    assert "step 9 of 24, state saved; the same command continues" in capsys.readouterr().err
    assert not (tmp_path / "summary.json").exists()
    monkeypatch.undo()
    assert command(tmp_path) == 0
    assert "continuing" in capsys.readouterr().out
    assert_bit_equal(finished, tmp_path)
    # The window that was cut in two means the same, too.
    for one, other in zip(lines(finished), lines(tmp_path), strict=True):
        one.pop("images_per_second", None), other.pop("images_per_second", None)
        assert one == other


def test_a_crash_goes_back_to_the_last_checkpoint_and_ends_bit_equal(
    finished, tmp_path, monkeypatch
):
    def crash(self, record):
        if record["step"] == 20:
            raise RuntimeError("power cut")

    monkeypatch.setattr(Progress, "trained", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        command(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tra')  # torn in the middle of a line
    monkeypatch.undo()
    assert command(tmp_path) == 0
    assert_bit_equal(finished, tmp_path)
    steps = [r["step"] for r in lines(tmp_path)]
    assert steps == sorted(steps) and steps.count(20) == 1


def test_what_a_checkpoint_notes_stays_as_it_was_while_training_goes_on():
    """It is written in the background."""
    window = Window(1)
    window.add({"a": {"loss": np.ones(2)}})
    window.fold()
    notes = window.notes()
    window.add({"a": {"loss": np.ones(1), "other": np.ones(1)}})
    window.fold()
    assert notes == {"steps": 2, "sums": [{"a/loss": 2.0}]}


def assert_bit_equal(a, b):
    ours, theirs = final_state(a), final_state(b)
    assert int(ours.step) == int(theirs.step) == 24
    jax.tree.map(np.testing.assert_array_equal, ours.networks, theirs.networks)
    one, other = (json.loads((w / "summary.json").read_text()) for w in (a, b))
    assert one["networks"] == other["networks"] and one["twins"] == other["twins"]


def test_eight_devices_train_the_same_networks(finished, tmp_path):
    """pmap by default; its checkpoint loads on one device."""
    assert command(tmp_path, "--config.parallel.devices=8") == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["device"].startswith("8 x cpu") and summary["device"].endswith("pmap")
    for a, b in zip(
        jax.tree.leaves(final_state(finished).networks),
        jax.tree.leaves(final_state(tmp_path).networks),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_without_held_out_examples_there_is_no_best_epoch(tmp_path):
    config = read_config(
        CONFIG, [*SETTINGS, "--config.data.heldout=0.0", "--config.duration=2 steps"]
    )
    summary = train(config, tmp_path, show_progress=False)
    assert summary["networks"][0]["best_heldout_epoch"] is None


def test_a_state_that_does_not_fit_is_said_before_it_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "device_memory", lambda devices: 5000)
    more = ("--config.method.name=ps_kd", "--config.graph=own", "--config.twins=False")
    config = f"{ROOT}/tests/digits_config.py:tests.tiny:Tiny"
    assert command(tmp_path / "w", *more, config=config, settings=SETTINGS[:-1]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: config.method.name = 'PSKD': the state takes 0.0 GiB on each")
    assert not (tmp_path / "w").exists()
    monkeypatch.setattr(trainer, "_MUCH", 100)
    run = assemble(read_config(config, [*SETTINGS[:-1], *more]))
    monkeypatch.setattr(trainer, "device_memory", lambda devices: None)
    trainer.require_room(run)
    assert "note: each device keeps 0.0 GiB of what PSKD remembers" in capsys.readouterr().out
