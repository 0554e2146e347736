"""What a trained network takes, and what it refuses."""

import importlib
import json
import shutil
import sys

import jax
import numpy as np
import pytest

from afd_jax.errors import SettingError
from afd_jax.runs.report import gather
from afd_jax.runs.trained import load
from afd_jax.runs.workdir import Workdir
from tests import tiny


@pytest.fixture(scope="module")
def network(finished):
    return load(finished, "Tiny", trust=True)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(1).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)


@pytest.mark.parametrize("high", [1, 255])
def test_floats_of_a_stated_range_are_the_same_images(network, pixels, high):
    floats = pixels.astype(np.float32) / np.float32(255 / high)
    found = network(floats, images_range=(0, high)).logits
    np.testing.assert_allclose(found, network(pixels).logits, atol=1e-5)
    inside = jax.jit(lambda x: network(x, images_range=(0, high)).logits)(floats)
    np.testing.assert_allclose(inside, found, atol=1e-5)


def test_code_that_a_folder_names_is_imported_only_for_those_who_say_so(finished, tmp_path):
    """The folder of a stranger names a module that would do something when imported."""
    with pytest.raises(SettingError, match=r"networks = 'tests.tiny:Tiny': .*trust=True"):
        load(finished, "Tiny")
    strange = shutil.copytree(finished, tmp_path / "strange")
    config = json.loads((strange / "config.json").read_text())
    config["networks"][1] = "tests.imported:Never"
    (strange / "config.json").write_text(json.dumps(config))
    with pytest.raises(SettingError, match=r"networks = 'tests.imported:Never'"):
        load(strange, "Tiny", trust=["tests.tiny:Tiny"])
    config["networks"][1], config["method"]["name"] = "tests.tiny:Wider", "tests.imported:Never"
    (strange / "config.json").write_text(json.dumps(config))
    modules = {"Tiny": tiny.Tiny(10), "Wider": tiny.Wider(10)}
    with pytest.raises(SettingError, match=r"method = 'tests.imported:Never'"):
        load(strange, "Tiny", modules=modules)
    mixed = [["Tiny", "Wider", "tests.imported:Never"]]
    for by_edge in (mixed, [[*mixed[0][:2], {"name": mixed[0][2]}]], str(mixed)):
        config["method"] = {"name": "mixed", "by_edge": by_edge}
        (strange / "config.json").write_text(json.dumps(config))
        with pytest.raises(SettingError, match=r"method = 'tests.imported:Never': the folder"):
            load(strange, "Tiny", modules=modules)
    config["method"] = {"name": "tests.imported:Never"}
    (strange / "config.json").write_text(json.dumps(config))
    gather([strange], images=False)
    with pytest.raises(SettingError, match=r"networks = 'tests.tiny:Tiny': the folder"):
        load(finished, "Tiny", trust="tests.tiny:Tiny and more")
    assert "tests.imported" not in sys.modules
    assert "label_smoothing" not in Workdir(strange).settings()["method"]
    assert importlib.import_module("tests.imported").Never  # it could have been
    assert "label_smoothing" in Workdir(strange).settings()["method"]
    del sys.modules["tests.imported"]
    given, imported = load(finished, "Tiny", modules=modules), load(finished, "Tiny", trust=True)
    assert given.module == imported.module
    with pytest.raises(SettingError, match="modules = 'Tinny': did you mean 'Tiny'"):
        load(finished, "Tiny", modules={"Tinny": tiny.Tiny(10)})


def test_probabilities_and_names(network, pixels):
    outputs = network(pixels)
    logits = np.asarray(outputs.logits, np.float64)
    wanted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(outputs.probabilities, wanted, atol=1e-6)
    assert len(network.class_names) == 10
    assert all(isinstance(name, str) for name in network.class_names)


@pytest.mark.parametrize(
    ("images", "images_range", "words"),
    [
        (np.zeros((2, 8, 8, 1), np.float32), None, "'float32': give uint8.* images_range"),
        (np.zeros((2, 8, 8, 1), np.int32), None, "'int32': give uint8"),
        (np.full((2, 8, 8, 1), 2.0, np.float32), (0, 1), "'2 to 2': must lie in images_range"),
        (np.full((2, 8, 8, 1), -0.1, np.float32), (0, 255), "must lie in images_range"),
        (np.full((2, 8, 8, 1), np.nan, np.float32), (0, 1), "must lie in images_range"),
        (np.zeros((2, 8, 8, 1), np.float32), (-1, 1), r"must be \(0, 1\) or \(0, 255\)"),
        (np.zeros((2, 8, 8, 1), np.uint8), (0, 1), "uint8 images are 0 to 255"),
        (np.zeros((8, 8, 1), np.uint8), None, "one image; add a batch axis"),
        (np.zeros((2, 1, 8, 8), np.uint8), None, "channels first.*transpose"),
        (np.zeros((2, 9, 8, 3), np.uint8), None, r"\[batch, 8, 8, 1\].*height and channels differ"),
        (np.zeros((2, 64), np.uint8), None, r"must be \[batch, 8, 8, 1\]"),
    ],
)
def test_what_cannot_be_meant_is_refused(network, images, images_range, words):
    with pytest.raises(SettingError, match=words):
        network(images, images_range=images_range)
