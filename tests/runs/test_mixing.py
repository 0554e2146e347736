"""A run with every augmentation, smoothed labels and averages: it continues, and averages load."""

import json

import jax
import numpy as np
import pytest

import afd_jax as afd
from tests.running import ROOT, command, ctrl_c_after, final_state

CONFIG = f"{ROOT}/tests/digits_config.py:tests.tiny:Tiny,tests.tiny:Wider"
SETTINGS = (
    "--config.data.limit=192",
    "--config.batch_size=32",
    "--config.eval_batch_size=64",
    "--config.duration=12 steps",
    "--config.log_every=4 steps",
    "--config.eval_every=12 steps",
    "--config.checkpoint_every=12 steps",
    "--config.parallel.devices=1",
    "--config.method.name=dml",
    "--config.twins=False",
    "--config.averages=True",
    "--config.average_decay=0.9",
    "--config.label_smoothing=0.1",
    "--config.optimizers.logit.clip=1.0",
    "--config.data.trivial_augment=True",
    "--config.data.erase=0.25",
    "--config.data.mixup=0.2",
    "--config.data.cutmix=1.0",
)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("mixed")
    assert command(workdir, config=CONFIG, settings=SETTINGS) == 0
    return workdir


def test_it_continues_bit_equal(mixed, tmp_path, monkeypatch):
    ctrl_c_after(monkeypatch, 4)
    assert command(tmp_path, config=CONFIG, settings=SETTINGS) == 130
    monkeypatch.undo()
    assert command(tmp_path, config=CONFIG, settings=SETTINGS) == 0
    states = (final_state(w, config=CONFIG, settings=SETTINGS) for w in (mixed, tmp_path))
    jax.tree.map(np.testing.assert_array_equal, *(state.networks for state in states))


def test_averages_are_evaluated_and_load(mixed):
    summary = json.loads((mixed / "summary.json").read_text())
    names = [each["name"] for each in summary["others"]]
    assert names == ["average of Tiny", "average of Wider"]
    images = np.zeros((2, 8, 8, 1), np.uint8)
    own, average = (afd.load(mixed, name, trust=True) for name in ("Tiny", names[0]))
    assert own(images).logits.shape == average(images).logits.shape == (2, 10)
    assert np.any(own(images).logits != average(images).logits)
    state = final_state(mixed, config=CONFIG, settings=SETTINGS).networks[names[0]]
    jax.tree.map(
        np.testing.assert_array_equal, average.variables["params"], state.params["network"]
    )
