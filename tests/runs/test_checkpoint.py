"""Checkpoints: whose they are, and what happens when one is damaged or cannot be written."""

import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from afd_jax.errors import SettingError
from afd_jax.runs import checksums, trained
from tests.running import command, damage, final_state, lines, one_line


def test_a_damaged_checkpoint_costs_one_checkpoint(finished, copied, caplog):
    (copied / "summary.json").unlink()
    damage(copied / "checkpoints" / "24")
    assert command(copied) == 0
    assert "checkpoint 24 is damaged, moved to" in caplog.text
    assert (copied / "damaged_checkpoint_24").is_dir()
    jax.tree.map(
        np.testing.assert_array_equal, final_state(finished).networks, final_state(copied).networks
    )
    assert len(lines(copied)) == len(lines(finished))
    # The same again: the first damaged one stays.
    (copied / "summary.json").unlink()
    damage(copied / "checkpoints" / "24")
    assert command(copied) == 0
    assert (copied / "damaged_checkpoint_24_2").is_dir()


def test_loading_passes_over_a_damaged_checkpoint_and_says_so(copied, caplog):
    assert trained.load(copied, "Tiny", trust=True).variables["params"]
    assert not caplog.records
    damage(copied / "checkpoints" / "24")
    assert trained.load(copied, "Tiny", trust=True).variables["params"]
    (words,) = (r.getMessage() for r in caplog.records if r.name == "afd_jax")
    assert "checkpoint 24 in" in words and words.endswith("using checkpoint 18")
    damage(copied / "checkpoints" / "18")
    with pytest.raises(SettingError, match=r"no checkpoint can be read \(step 24"):
        trained.load(copied, "Tiny", trust=True)


def test_loading_says_so_when_the_summary_speaks_of_another_checkpoint(copied, caplog):
    shutil.rmtree(copied / "checkpoints" / "24")
    assert trained.load(copied, "Tiny", trust=True).variables["params"]
    (record,) = caplog.records
    assert "summary.json is of step 24, but checkpoint" in record.getMessage()


def test_a_checkpoint_of_another_run_is_refused(copied, tmp_path, capsys):
    assert command(tmp_path / "other", "--config.seed=5") == 0
    shutil.rmtree(copied / "checkpoints" / "24")
    shutil.copytree(tmp_path / "other" / "checkpoints" / "24", copied / "checkpoints" / "24")
    with pytest.raises(SettingError, match=r"24': is a checkpoint of another run: config\.seed"):
        trained.load(copied, "Tiny", trust=True)
    (copied / "summary.json").unlink()
    before = (copied / "metrics.jsonl").read_bytes()
    capsys.readouterr()
    assert command(copied) == 2
    assert "is a checkpoint of another run: config.seed is 0 here" in one_line(capsys)
    assert (copied / "metrics.jsonl").read_bytes() == before


def test_a_checkpoint_under_the_name_of_another_step_is_refused(copied, capsys):
    shutil.rmtree(copied / "checkpoints" / "24")
    (copied / "checkpoints" / "18").rename(copied / "checkpoints" / "24")
    with pytest.raises(SettingError, match="24': holds the state of step 18"):
        trained.load(copied, "Tiny", trust=True)
    (copied / "summary.json").unlink()
    assert command(copied) == 2
    assert "holds the state of step 18; put the run's own" in one_line(capsys)


def test_a_save_that_fails_ends_the_run_with_a_line(tmp_path, capsys, monkeypatch):
    save = ocp.CheckpointManager.save

    def full(self, step, **kwargs):
        if step == 12:
            raise OSError(28, "No space left on device")
        return save(self, step, **kwargs)

    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    assert command(tmp_path) == 1
    error = one_line(capsys)
    assert "checkpoint 12 cannot be saved in" in error and "No space left on device" in error
    monkeypatch.undo()
    assert command(tmp_path) == 0
    assert "continuing" in capsys.readouterr().out


def test_when_no_checkpoint_can_be_read_the_run_says_so(copied, capsys):
    (copied / "summary.json").unlink()
    for step in ("18", "24"):
        damage(copied / "checkpoints" / step)
    before = (copied / "metrics.jsonl").read_bytes()
    assert command(copied) == 2
    assert "no checkpoint can be read (step 24: " in one_line(capsys)
    assert (copied / "metrics.jsonl").read_bytes() == before


def rewrite(checkpoint, change):
    """Stores other values, in files that are whole."""
    with ocp.StandardCheckpointer() as storage:
        tree = jax.tree.map(np.array, storage.restore(checkpoint / "state"))
        change(tree["networks"])
        storage.save(checkpoint / "state", tree, force=True)


def spoil(tree):
    """Changes one bit of one value of its first array."""
    leaf = jax.tree.leaves(tree)[0]
    leaf.reshape(-1).view(np.uint8)[0] ^= 1


def noted(checkpoint, change):
    """Changes the notes, in a file that is JSON still."""
    (file,) = (p for p in (checkpoint / "notes").rglob("*") if p.name == "metadata")
    notes = json.loads(file.read_text())
    change(notes)
    file.write_text(json.dumps(notes))


def test_one_wrong_bit_is_noticed_when_a_run_continues(finished, copied, caplog):
    (copied / "summary.json").unlink()
    rewrite(copied / "checkpoints" / "24", lambda networks: spoil(networks["Wider"]["optimizers"]))
    assert command(copied) == 0
    assert "(networks/Wider/optimizers/" in caplog.text
    assert "has changed since it was saved)" in caplog.text
    jax.tree.map(
        np.testing.assert_array_equal, final_state(finished).networks, final_state(copied).networks
    )


@pytest.mark.parametrize("part", ["params", "statistics"])
def test_one_wrong_bit_is_noticed_when_a_network_is_loaded(part, copied, caplog):
    rewrite(
        copied / "checkpoints" / "24", lambda networks: spoil(networks["Tiny"][part]["network"])
    )
    assert trained.load(copied, "Wider", trust=True).variables["params"]
    assert not caplog.records  # nothing of Tiny was read
    assert trained.load(copied, "Tiny", trust=True).variables["params"]
    assert f"(networks/Tiny/{part}/network/" in caplog.text
    assert "using checkpoint 18" in caplog.text


def test_changed_notes_are_noticed(copied, caplog):
    noted(copied / "checkpoints" / "24", lambda notes: notes.update(train_seconds=1e6))
    assert trained.load(copied, "Tiny", trust=True).variables["params"]
    assert "its notes have changed" in caplog.text and "using checkpoint 18" in caplog.text


def test_a_checkpoint_from_before_there_were_checksums_can_be_read(copied, caplog):
    def older(notes):
        del notes["checksum"], notes["of"]["arrays"]

    noted(copied / "checkpoints" / "24", older)
    assert trained.load(copied, "Tiny", trust=True).variables["params"]
    (copied / "summary.json").unlink()
    assert command(copied) == 0
    assert not caplog.records


def test_checksums_are_crc32_of_the_bytes():
    """Check value of the CRC catalogue: CRC-32/ISO-HDLC of "123456789" is cbf43926."""
    letters = np.frombuffer(b"123456789", np.uint8)
    tree = {"a": (letters, jax.device_put(letters)[::-1]), "b": np.float32(0)}
    found = checksums.of_arrays(tree, "at/")
    assert found["at/a/0"] == "cbf43926" and found["at/a/1"] != "cbf43926"
    assert found["at/b"] == checksums.of_arrays([np.zeros((2, 2), np.uint8)])["0"]
    with pytest.raises(ValueError, match="at/b has changed"):
        checksums.require_same(found, {**found, "at/b": "00000000"})
