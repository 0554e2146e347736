"""Scripts that no test runs in full: at least all that they import is there, and shell is shell."""

import pathlib
import runpy
import subprocess

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
PYTHON = sorted(
    str(path.relative_to(FOLDER))
    for path in (*FOLDER.glob("*.py"), *FOLDER.glob("speed/*.py"))
    if path.name != "torch_worker.py"  # for an environment with PyTorch
)
SHELL = sorted(path.name for path in (FOLDER / "launch").iterdir())


@pytest.mark.parametrize("name", PYTHON)
def test_imports_what_there_is(name):
    assert runpy.run_path(str(FOLDER / name))["main"]


@pytest.mark.parametrize("name", SHELL)
def test_launch_script_parses(name):
    done = subprocess.run(
        ["bash", "-n", str(FOLDER / "launch" / name)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
