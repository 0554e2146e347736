"""Predictions from a checkpoint: those of training's own evaluation, on its data or on files."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest

from afd_jax import data
from afd_jax.errors import SettingError, UnreadableError
from afd_jax.runs import predictions, trained
from tests.running import ROOT, command, damage
from tests.runs.test_workdir import arrays_file

# The runs have networks of the tests' own.
predict = functools.partial(predictions.predict, trust=True)
predict_seeds = functools.partial(predictions.predict_seeds, trust=True)
load = functools.partial(trained.load, trust=True)
NODES = ["Tiny", "Wider", "Tiny alone", "Wider alone"]


def test_every_node_predicts_as_the_network_that_is_loaded(finished):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    found = predict(finished)
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before
    test = data.load("digits", heldout=0.2, limit=192).test
    np.testing.assert_array_equal(found.labels, test.labels)
    assert [*found.probabilities] == NODES and found.roles["Tiny alone"] == "twin"
    assert (found.step, found.seed, len(found.examples)) == (24, 0, 192)
    assert found.class_names == [str(i) for i in range(10)]
    for node, p in found.probabilities.items():
        logits = np.asarray(load(finished, node)(test.images).logits, np.float64)
        expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(p, expected, rtol=1e-4)
        assert p.dtype == np.float32
    whole = predict(finished, batch_size=192)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4),
        dict(found.probabilities),
        dict(whole.probabilities),
    )


def test_the_other_splits(finished):
    noted = json.loads((finished / "data.json").read_text())
    for split in ("train", "heldout"):
        assert len(predict(finished, split).examples) == noted[split]
    with pytest.raises(SettingError, match="split = 'tset': did you mean 'test'"):
        predict(finished, "tset")
    with pytest.raises(SettingError, match="seed = 3: the run has the seeds 0 to 0"):
        predict(finished, seed=3)
    with pytest.raises(SettingError, match="batch_size = 0: must be a whole number"):
        predict(finished, batch_size=0)


def test_files_of_images_are_predicted_as_the_arrays_are(finished, tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    test = data.load("digits", limit=192).test
    (tmp_path / "below").mkdir()
    for i in range(5):
        pixels = image.fromarray(test.images[i, ..., 0])
        pixels.save(tmp_path / (f"{i}.png" if i < 3 else f"below/{i}.PNG"))
    (tmp_path / "notes.txt").touch()
    found, whole = predict(finished, images=tmp_path), predict(finished)
    assert found.labels is None and found.sha256 is None
    assert found.examples == ["0.png", "1.png", "2.png", "below/3.PNG", "below/4.PNG"]
    for node, p in found.probabilities.items():
        np.testing.assert_allclose(p, whole.probabilities[node][:5], rtol=1e-4)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert predict(finished, images=f"~/{tmp_path.name}").examples == found.examples
    # Another size, and colours: the same picture, twice as large.
    image.open(tmp_path / "0.png").convert("RGB").resize((16, 16), 0).save(tmp_path / "0.png")
    larger = predict(finished, images=tmp_path).probabilities["Tiny"][0]
    assert np.abs(larger - whole.probabilities["Tiny"][0]).max() < 0.05
    (tmp_path / "1.png").write_bytes(b"no image")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "0.png").write_bytes(b"no image")
    rest = predict(finished, images=tmp_path)
    assert rest.examples == [name for name in found.examples if name != "1.png"]
    assert [*rest.unreadable] == ["1.png"] and "cannot identify" in rest.unreadable["1.png"]
    for node, p in rest.probabilities.items():
        np.testing.assert_allclose(p[1:], whole.probabilities[node][2:5], rtol=1e-4)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "1.png").rename(tmp_path / "damaged" / "1.png")
    with pytest.raises(UnreadableError, match=r"no image in .*/damaged can be read, "):
        predict(finished, images=tmp_path / "damaged")
    with pytest.raises(SettingError, match="images = '': no such folder"):
        predict(finished, images="")
    with pytest.raises(SettingError, match=r"images = .*: holds no "):
        (tmp_path / "empty").mkdir()
        predict(finished, images=tmp_path / "empty")
    with pytest.raises(SettingError, match="no such folder"):
        predict(finished, images=tmp_path / "none")


def test_several_seeds_and_branches(tmp_path):
    config = f"{ROOT}/tests/digits_config.py:tests.tiny:Stages"
    settings = ["--config.method.name=one", "--config.data.limit=96", "--config.batch_size=32"]
    settings += ["--config.eval_batch_size=64", "--config.duration=3 steps", "--config.seeds=2"]
    settings += ["--config.log_every=3 steps", "--config.parallel.devices=1"]
    settings += ["--config.graph=own", "--config.twins=False", "--config.seed=5"]
    assert command(tmp_path, config=config, settings=settings) == 0
    first, second = predict_seeds(tmp_path)
    assert (first.seed, second.seed) == (5, 6)
    assert "ensemble" in first.roles.values() and [*first.roles] == [*first.probabilities]
    for node, p in second.probabilities.items():
        own = load(tmp_path, node, seed=6)
        logits = own(data.load("digits", limit=96).test.images).logits
        np.testing.assert_allclose(p, jax.nn.softmax(logits), rtol=1e-3, atol=1e-6)
        assert np.abs(p - first.probabilities[node]).max() > 1e-3
    np.testing.assert_array_equal(
        predict(tmp_path, seed=6).probabilities[node], second.probabilities[node]
    )


def test_data_that_moved_and_data_that_changed(tmp_path):
    settings = [*arrays_file(tmp_path / "a.npz", 0), "--config.duration=1 steps"]
    settings += ["--config.data.heldout=0.0", "--config.twins=False"]
    run = tmp_path / "run"
    assert command(run, *settings) == 0
    there = predict(run)
    moved = (tmp_path / "a.npz").rename(tmp_path / "b.npz")
    with pytest.raises(SettingError, match=r"a\.npz': no such file.*name their place"):
        predict(run)
    again = predict(run, data_dir=str(moved))
    jax.tree.map(
        np.testing.assert_array_equal, dict(there.probabilities), dict(again.probabilities)
    )
    with pytest.raises(SettingError, match="split = 'heldout': the run has no such images"):
        predict(run, "heldout", data_dir=str(moved))
    noted = json.loads((run / "data.json").read_text())
    names = [f"digit {i}" for i in range(10)]
    (run / "data.json").write_text(json.dumps({**noted, "class_names": names}))
    assert predict(run, data_dir=str(moved)).class_names == names
    arrays_file(moved, 1)
    with pytest.raises(SettingError, match=r"holds other data than the run in .*sha256 was"):
        predict(run, data_dir=str(moved))


def test_a_checkpoint_that_is_damaged_or_missing(finished, tmp_path):
    with pytest.raises(SettingError, match="no run in this folder"):
        predict(tmp_path)
    copied = shutil.copytree(finished, tmp_path / "copy")
    damage(copied / "checkpoints" / "24")
    assert predict(copied).step == 18
    damage(copied / "checkpoints" / "18")
    with pytest.raises(SettingError, match="no checkpoint can be read"):
        predict(copied)
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(SettingError, match="no checkpoint in this folder"):
        predict(copied)
