"""A run's hold on its folder: one program at a time, of the same settings, data and teachers."""

import contextlib
import errno
import logging
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
from jax.experimental import multihost_utils

from afd_jax.errors import SettingError, first_line
from afd_jax.reports.facts import graph_facts
from afd_jax.runs.assemble import Run
from afd_jax.runs.overrides import as_json
from afd_jax.runs.workdir import Workdir, read_json, require_same, write_json

_logger = logging.getLogger("afd_jax")

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
        # Process 0 first: the others compare their settings and data with what it has written.
        for writes in (True, False):
            problem = None
            try:
                if writes == (jax.process_index() == 0):
                    _claim(folder, config, run, stack, writes)
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
    folder: Workdir,
    config: ml_collections.ConfigDict,
    run: Run,
    stack: contextlib.ExitStack,
    writes: bool,
) -> None:
    settings, facts = as_json(config), _facts(run)
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
    """Locks the folder until the stack is left.

    By a file, opened to write: NFS locks nothing else for other machines.
    """
    if fcntl is None:
        return
    try:
        number = os.open(folder.path / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES) and folder.summary.is_file():
            return  # a finished run, which is only read
        raise
    stack.callback(os.close, number)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        remedy = "another program trains in this folder; wait for it, or name another one"
        raise SettingError("--workdir", str(folder.path), remedy) from error
    except OSError as error:
        words = "the file system of %s has no locks (%s); see that only one program trains there"
        _logger.warning(words, folder.path, first_line(error))


def claim_weights(folder: Workdir, run: Run) -> None:
    """Notes fingerprints of teachers and of what networks start from, or checks those noted.

    Raises:
      SettingError: if the run began with other weights.
    """
    own = [
        {"network": name, "from": start.origin, "sha256": start.digest}
        for name, start in run.starts.items()
    ]
    if own:
        _claim_weights("init_from", folder.init_from, own, folder.noted_starts(), "from")
    if not run.teachers or any(t.variables is None for t in run.teachers.values()):
        return  # a finished run whose teachers' folders are gone has none to compare
    own = [
        {"name": t.name, "method": t.method, "folder": t.folder, "sha256": t.digest}
        for t in run.teachers.values()
    ]
    _claim_weights("teachers", folder.teachers, own, folder.noted_teachers(), "folder")


def _claim_weights(
    field: str,
    file: pathlib.Path,
    own: Sequence[Mapping[str, str]],
    noted: Sequence[Mapping[str, str]],
    place: str,
) -> None:
    """Writes a list of weights into a file, or compares it; `place` is where each came from."""
    if not file.is_file():
        if jax.process_index() == 0:
            write_json(file, {field: own})
    elif [weights["sha256"] for weights in noted] != [weights["sha256"] for weights in own]:
        remedy = f"holds other networks than the run in {file.parent} began with, those of "
        remedy += f"{[weights[place] for weights in noted]}; use those, or another --workdir"
        raise SettingError(f"config.{field}", [weights[place] for weights in own], remedy)


def _compare_data(
    folder: Workdir, facts: Mapping[str, Any], config: ml_collections.ConfigDict
) -> None:
    saved = read_json(folder.data)
    for name, now in facts.items():
        was = saved.get(name)
        if name == "class_names" and was is None:  # of a run from before they were kept
            continue
        if was != now:
            remedy = f"holds other data than the run in {folder.path} began with ({name} was "
            remedy += f"{was!r}, is {now!r}); use that data, or another --workdir"
            raise SettingError("config.data.data_dir", config.data.data_dir, remedy)


def _facts(run: Run) -> dict[str, Any]:
    """Of the data, as JSON: what using a trained network needs, and a fingerprint."""
    return {
        "image_shape": list(run.splits.image_shape),
        "classes": run.splits.classes,
        "class_names": list(run.splits.class_names),
        "mean": list(run.recipe.mean),
        "std": list(run.recipe.std),
        "train": len(run.splits.train),
        "heldout": len(run.splits.heldout),
        "test": len(run.splits.test),
        "sha256": run.splits.digest,
    }
