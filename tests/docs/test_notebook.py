"""Each notebook runs from top to bottom, in an empty folder; its own assertions must hold."""

import pathlib
import re

import nbformat
import pytest
from nbclient import NotebookClient

from afd_jax.data.cache import cache_dir

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def read(name):
    return nbformat.read(FOLDER / name, as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache_dir("xla")))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    notebook = read(name)
    NotebookClient(
        notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert outputs(notebook)


def test_there_is_a_notebook_for_each_first_question():
    there = {"losses_elsewhere", "one_afd_step", "own_graph", "own_network_and_data"}
    assert {f"{name}.ipynb" for name in there} == {*NOTEBOOKS}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_cells_are_short(name):
    for cell in read(name).cells:
        assert len(cell.source.splitlines()) <= 30, cell.source


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_outputs_are_whole_and_name_no_machine(name):
    """It was run once from top to bottom, and shows its graph without being run again."""
    notebook = read(name)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == [*range(1, len(counts) + 1)]
    found = outputs(notebook)
    assert {output.output_type for output in found} <= {"stream", "execute_result", "display_data"}
    if name != "losses_elsewhere.ipynb":
        assert any("image/svg+xml" in output.get("data", {}) for output in found)
    shown = "".join(str(output) for output in found)
    assert not re.findall(r"/(?:home|root|tmp|work|Users|usr)/", shown)
