"""A run's hold on its folder: one program at a time, of the same settings, data and teachers."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections
from jax.experimental import multihost_utils

from afd_jax.errors import SettingError, first_line
from afd_jax.reports.facts import graph_facts
from afd_jax.runs.assemble import Run
from afd_jax.runs.overrides import as_json
from afd_jax.runs.workdir import Workdir, read_json, require_same, write_json

try:
    import fcntl
except ImportError:  # not on this system; then two programs can use one folder
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def claimed(folder: Workdir, config: ml_collections.ConfigDict, run: Run) -> Iterator[None]:
    """Makes the folder this run's own, or checks that it is; no other program may enter.

    Raises:
      SettingError: if the folder cannot be written, holds a run of other settings or data, or
        is in use.
    """
    with contextlib.ExitStack() as stack:
        problem = None
        try:
            _claim(folder, config, run, stack)
        except SettingError as error:
            problem = error
        except OSError as error:
            remedy = f"cannot be written ({first_line(error)})"
            problem = SettingError("--workdir", str(folder.path), remedy)
        if jax.process_count() > 1:  # all go on, or none
            refused = multihost_utils.process_allgather(problem is not None).any()
            if refused and problem is None:
                remedy = "another process of this run could not use it; see its message"
                problem = SettingError("--workdir", str(folder.path), remedy)
        if problem:
            raise problem
        yield


def _claim(
    folder: Workdir, config: ml_collections.ConfigDict, run: Run, stack: contextlib.ExitStack
) -> None:
    settings, facts = as_json(config), _facts(run)
    writes = jax.process_index() == 0
    folder.path.mkdir(parents=True, exist_ok=True)
    if writes:
        _lock(folder, stack)
    if folder.config.is_file():
        require_same(settings, folder.settings(), folder.path)
    elif writes:
        write_json(folder.config, settings)
    if folder.data.is_file():
        _compare_data(folder, facts, config)
    elif writes:
        write_json(folder.data, facts)
    if writes and not folder.graph.is_file():
        write_json(folder.graph, graph_facts(run.plan))


def _lock(folder: Workdir, stack: contextlib.ExitStack) -> None:
    """Locks the folder itself, which no writing replaces, until the stack is left."""
    if fcntl is None:
        return
    number = os.open(folder.path, os.O_RDONLY)
    stack.callback(os.close, number)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        remedy = "another program trains in this folder; wait for it, or name another one"
        raise SettingError("--workdir", str(folder.path), remedy) from error
    except OSError:  # a file system without locks
        pass


def claim_teachers(folder: Workdir, run: Run) -> None:
    """Notes the teachers' fingerprints, or checks that they are those noted.

    Raises:
      SettingError: if the run began with other teachers.
    """
    if not run.teachers or any(t.variables is None for t in run.teachers.values()):
        return  # a finished run whose teachers' folders are gone has none to compare
    own = [
        {"name": t.name, "method": t.method, "folder": t.folder, "sha256": t.digest}
        for t in run.teachers.values()
    ]
    if not folder.teachers.is_file():
        if jax.process_index() == 0:
            write_json(folder.teachers, {"teachers": own})
        return
    noted = folder.noted_teachers()
    if [t["sha256"] for t in noted] != [t["sha256"] for t in own]:
        remedy = f"holds other networks than the run in {folder.path} began with, those of "
        remedy += f"{[t['folder'] for t in noted]}; use those, or another --workdir"
        raise SettingError("config.teachers", [t["folder"] for t in own], remedy)


def _compare_data(
    folder: Workdir, facts: Mapping[str, Any], config: ml_collections.ConfigDict
) -> None:
    saved = read_json(folder.data)
    for name, value in facts.items():
        if saved.get(name) != value:
            remedy = f"holds other data than the run in {folder.path} began with ({name} was "
            remedy += f"{saved.get(name)!r}, is {value!r}); use that data, or another --workdir"
            raise SettingError("config.data.data_dir", config.data.data_dir, remedy)


def _facts(run: Run) -> dict[str, Any]:
    """Of the data, as JSON: what using a trained network needs, and a fingerprint."""
    return {
        "image_shape": list(run.splits.image_shape),
        "classes": run.splits.classes,
        "mean": list(run.recipe.mean),
        "std": list(run.recipe.std),
        "train": len(run.splits.train),
        "heldout": len(run.splits.heldout),
        "test": len(run.splits.test),
        "sha256": run.splits.digest,
    }
