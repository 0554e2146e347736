"""The whole way of a user with everything of their own, by the real commands."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_own_photographs_networks_and_teacher_to_onnx(tmp_path):
    for package in ("safetensors", "jax2onnx", "onnxruntime", "tensorboardX"):
        pytest.importorskip(package)
    path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [ROOT / "experiments" / "walk.sh", tmp_path / "walk"],
        env={**os.environ, "PATH": path, "STEPS": "12"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accuracies: equal to summary.json" in done.stdout
    for words in (
        "onnxruntime: (8, 3), difference from the trained",
        "afd.load: (8, 3), difference",
    ):
        assert done.stdout.count(words) == 2
    run = tmp_path / "walk" / "run"
    assert json.loads((run / "summary.json").read_text())["steps"] == 12
    assert "<html" in (run / "report.html").read_text()
    assert list((run / "tensorboard").rglob("events.*"))
    files = {"model.safetensors", "model.stablehlo", "model.onnx", "README.md"}
    for name in ("InLinen", "InNNX"):
        assert files <= {p.name for p in (tmp_path / "walk" / name).iterdir()}
