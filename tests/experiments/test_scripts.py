"""Scripts that no test runs in full: at least all that they import is there."""

import pathlib
import runpy

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
PYTHON = sorted(
    str(path.relative_to(FOLDER))
    for path in (*FOLDER.glob("*.py"), *FOLDER.glob("speed/*.py"))
    if path.name != "torch_worker.py"  # for an environment with PyTorch
)


@pytest.mark.parametrize("name", PYTHON)
def test_imports_what_there_is(name):
    assert runpy.run_path(str(FOLDER / name))["main"]
