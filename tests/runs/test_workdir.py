"""The folder of a run: whose it is, what is checked, what happens when files are damaged."""

import errno
import fcntl
import json
import os
import shutil

import jax
import numpy as np
import pytest

from afd_jax import data
from afd_jax.errors import SettingError
from afd_jax.runs import lock, trained, trainer
from afd_jax.runs.overrides import read_config
from afd_jax.runs.predictions import predict
from afd_jax.runs.report import gather
from afd_jax.runs.trainer import train
from afd_jax.runs.workdir import Workdir
from tests.running import CONFIG, SETTINGS, command, final_state, lines, one_line


def test_a_trained_network_can_be_used_elsewhere(finished, monkeypatch):
    """Without the data, and without touching the folder."""
    monkeypatch.setattr("afd_jax.data.sources.load", None)
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    network = trained.load(finished, "Wider", trust=True)
    expected = final_state(finished).networks["Wider"]
    jax.tree.map(
        np.testing.assert_array_equal, network.variables["params"], expected.params["network"]
    )
    statistics = expected.statistics["network"]["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, network.variables["batch_stats"], statistics)
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before

    monkeypatch.undo()
    with pytest.raises(SettingError, match="images = 'float32': give uint8, as they come from"):
        network(np.zeros((1, 8, 8, 1), np.float32))
    test = data.load("digits", limit=192).test
    right = np.mean(np.argmax(network(test.images).logits, 1) == test.labels)
    summary = json.loads((finished / "summary.json").read_text())
    np.testing.assert_allclose(right, summary["networks"][1]["test_accuracy"], atol=1e-6)
    with pytest.raises(SettingError, match="node = 'Wide': did you mean 'Wider'"):
        trained.load(finished, "Wide", trust=True)
    with pytest.raises(SettingError, match="node = None: the run has Tiny, Wider, Tiny alone, W"):
        trained.load(finished, trust=True)


def test_loading_from_a_folder_without_a_run(tmp_path):
    with pytest.raises(SettingError, match="no run in this folder"):
        trained.load(tmp_path, trust=True)
    assert not list(tmp_path.iterdir())


def test_another_setting_in_the_same_folder_is_refused(finished, capsys):
    assert command(finished, "--config.seed=1") == 2
    error = one_line(capsys)
    assert error.startswith("error: config.seed = 1: the run in ") and "has 0; use that" in error


def test_what_does_not_change_the_numbers_may_change(finished, capsys):
    assert command(finished, "--config.log_every=2 steps") == 0
    assert "is finished" in capsys.readouterr().out


def test_a_field_that_came_later_has_its_default(copied, capsys):
    config = json.loads((copied / "config.json").read_text())
    del config["average_decay"], config["data"]["flip"], config["method"]["critic"]["slope"]
    (copied / "config.json").write_text(json.dumps(config))
    assert command(copied) == 0
    assert "is finished" in capsys.readouterr().out


def arrays_file(path, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(256, size=(64, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(64) % 10
    arrays = {"images": images, "labels": labels, "test_images": images, "test_labels": labels}
    np.savez(path, **arrays)
    return ["--config.data.name=arrays", f"--config.data.data_dir={path}"]


def test_other_data_under_the_same_settings_is_refused(tmp_path, capsys):
    settings = [*arrays_file(tmp_path / "a.npz", 0), "--config.duration=1 steps"]
    settings += ["--config.data.heldout=0.0", "--config.twins=False"]
    assert command(tmp_path / "run", *settings) == 0
    moved = (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    capsys.readouterr()
    settings[1] = f"--config.data.data_dir={moved}"
    assert command(tmp_path / "run", *settings) == 0  # the same data at another place
    arrays_file(moved, 1)
    assert command(tmp_path / "run", *settings) == 2
    assert "holds other data than the run in" in one_line(capsys)


def test_a_folder_in_use_is_refused(copied, capsys):
    folder = os.open(copied / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(folder, fcntl.LOCK_EX)
    assert command(copied) == 2
    os.close(folder)
    assert "another program trains in this folder" in one_line(capsys)
    assert command(copied) == 0


def test_a_finished_run_may_lie_where_nothing_can_be_written(copied, capsys, monkeypatch):
    really = os.open

    def only_read(path, flags, *more, **options):
        if str(path).endswith(".lock"):
            raise OSError(errno.EROFS, "Read-only file system")
        return really(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", only_read)
    assert command(copied) == 0
    assert "is finished" in capsys.readouterr().out
    (copied / "summary.json").unlink()
    assert command(copied) == 2
    assert "cannot be written (" in one_line(capsys)


def test_a_finished_run_stays_finished_without_its_checkpoints(copied, capsys):
    shutil.rmtree(copied / "checkpoints")
    before = (copied / "metrics.jsonl").read_bytes()
    assert command(copied) == 0
    assert "is finished" in capsys.readouterr().out
    assert (copied / "metrics.jsonl").read_bytes() == before
    with pytest.raises(SettingError, match="no checkpoint in this folder"):
        trained.load(copied, "Tiny", trust=True)
    assert not (copied / "checkpoints").exists()


@pytest.mark.parametrize("name", ["config.json", "data.json", "summary.json"])
def test_a_damaged_file_is_named(name, copied, capsys):
    (copied / name).write_text('{"seed": 0, ')
    assert command(copied) == 2
    error = one_line(capsys)
    assert f"{name}': is damaged (" in error and "put a copy back" in error


def test_a_file_that_lacks_something_is_named(copied):
    for name, missing in (("graph", "edges, nodes"), ("data", "classes, ")):
        content = (copied / f"{name}.json").read_text()
        (copied / f"{name}.json").write_text("{}")
        with pytest.raises(SettingError, match=rf"{name}\.json': is damaged \({missing}.*missing"):
            predict(copied, trust=True)
        (copied / f"{name}.json").write_text(content)
    (copied / "summary.json").write_text("{}")
    with pytest.raises(SettingError, match=r"summary\.json': is damaged"):
        gather([copied], images=False)


def test_a_damaged_line_costs_that_line_only(copied):
    (copied / "summary.json").unlink()
    log = copied / "metrics.jsonl"
    good = log.read_text().splitlines(keepends=True)
    log.write_text("".join(["\x00\n", "{}\n", *good]))
    assert command(copied) == 0
    assert log.read_text() == "".join(good) and (copied / "summary.json").is_file()


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("summary.json", "{}", "networks, steps, train_seconds missing"),
        ("config.json", "[" * 100_000, "recursion"),
        ("config.json", '{"teachers": null}', "teachers is None"),
    ],
)
def test_a_file_of_another_kind_is_named(name, content, found, copied, capsys):
    (copied / name).write_text(content)
    assert command(copied) == 2
    error = one_line(capsys)
    assert f"{name}': is damaged (" in error and found in error


def test_a_lost_last_evaluation_is_made_again(finished, copied):
    (copied / "summary.json").unlink()
    kept = [json.dumps(r) for r in lines(copied) if r["step"] < 24]
    (copied / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    assert command(copied) == 0
    accuracies = [
        [n["test_accuracy"] for n in json.loads((f / "summary.json").read_text())["networks"]]
        for f in (finished, copied)
    ]
    assert accuracies[0] == accuracies[1]


def test_a_last_evaluation_that_lacks_a_seed_is_made_again(tmp_path):
    two = ("--config.seeds=2", "--config.twins=False", "--config.duration=6 steps")
    assert command(tmp_path, *two) == 0
    summary = (tmp_path / "summary.json").read_text()
    (tmp_path / "summary.json").unlink()
    kept = [json.dumps(r) for r in lines(tmp_path) if r["kind"] == "train" or r["seed"] == 0]
    (tmp_path / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    assert command(tmp_path, *two) == 0
    accuracies = [
        [n["test_accuracy"] for run in json.loads(text)["runs"] for n in run["networks"]]
        for text in (summary, (tmp_path / "summary.json").read_text())
    ]
    assert accuracies[0] == accuracies[1]


def test_metrics_are_kept_when_the_checkpoints_are_lost(copied, capsys):
    (copied / "summary.json").unlink()
    shutil.rmtree(copied / "checkpoints")
    before = (copied / "metrics.jsonl").read_bytes()
    assert command(copied) == 0
    assert "no checkpoints in" in capsys.readouterr().out
    assert (copied / "metrics_before_1.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("setting", "most"),
    [("seeds", 1000), ("parallel.steps_per_call", 10_000), ("batch_size", 2**31 - 1)],
)
def test_a_size_beyond_reason_is_refused(setting, most, tmp_path, capsys):
    assert command(tmp_path, f"--config.{setting}={10**18}") == 2
    error = one_line(capsys)
    assert f"config.{setting} = {10**18}: must be a whole number" in error
    assert f"at most {most}" in error


def test_a_message_shows_the_beginning_of_a_long_value(tmp_path, capsys):
    assert command(tmp_path, f"--config.graph={'x' * 3000}") == 2
    error = one_line(capsys)
    assert len(error) < 600 and "characters)" in error


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ("init_from=('{}',)", "init_from[0]"),
        ("init_from=('a/{}@Tiny',)", "init_from[0]"),
        ("teachers=('{}',)", "teachers[0]"),
        ("data.data_dir={}", "data.data_dir"),
    ],
)
def test_a_path_that_is_too_long_is_refused(setting, field, tmp_path, capsys):
    for name in ("x" * 3000, "é" * 150, "/".join(["x" * 100] * 50)):  # 300 bytes; 5 kB
        assert command(tmp_path / "run", f"--config.{setting.format(name)}") == 2
        error = one_line(capsys)
        assert f"config.{field} = " in error and "is too long for a file" in error
    assert not (tmp_path / "run").exists()


def test_a_folder_whose_name_is_too_long_is_refused_in_short(tmp_path, capsys):
    assert command(tmp_path / ("x" * 3000)) == 2
    error = one_line(capsys)
    assert len(error) < 400 and "is too long for a file" in error


def test_settings_from_python_need_not_name_every_option(tmp_path):
    """As a config file returns them, without the command line's filling in."""
    config = read_config(CONFIG, [*SETTINGS, "--config.duration=1 steps"])
    with config.unlocked():
        del config.method["critic"]["slope"], config.optimizers.logit["schedule"]
    first = train(config, tmp_path, show_progress=False)
    assert train(config, tmp_path, show_progress=False) == first


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, capsys, monkeypatch):
    assert command(tmp_path, "--config.optimizers.logit.learning_rate=1e30") == 1
    error = one_line(capsys)
    assert error.startswith("error: training diverged at step 4: ") and "learning rate" in error
    assert all(np.isfinite(v) for r in lines(tmp_path) for v in r.values() if type(v) is float)


def test_a_crash_while_reporting_leaves_the_run_to_be_finished(copied, monkeypatch):
    """The summary is the last file: without it, the same command makes it again."""
    (copied / "summary.json").unlink()
    (copied / "curves.png").unlink()
    monkeypatch.setattr(trainer, "plot_curves", None)
    with pytest.raises(TypeError):
        command(copied)
    assert not (copied / "summary.json").exists()
    monkeypatch.undo()
    assert command(copied) == 0
    assert (copied / "curves.png").is_file() and (copied / "summary.json").is_file()


@pytest.mark.parametrize("index", [0, 1])
def test_other_processes_compare_with_what_process_0_has_written(index, monkeypatch, tmp_path):
    events = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: index)
    monkeypatch.setattr(lock, "_claim", lambda *_: events.append("claim"))

    def gathered(refused):
        events.append("wait")
        return np.array([refused, False])

    monkeypatch.setattr(lock.multihost_utils, "process_allgather", gathered)
    with lock.claimed(Workdir(tmp_path), None, None):
        assert events == [["claim", "wait", "wait"], ["wait", "claim", "wait"]][index]
