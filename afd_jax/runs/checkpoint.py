"""Saving and restoring a run with Orbax.

A checkpoint knows whose it is: its notes hold its step, the run's settings and the versions that
wrote it. Files of another run, or under another step's name, are refused. They also hold checksums
of the arrays, so that one whose values have changed counts as damaged.
"""

import contextlib
import errno
import importlib.metadata
import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from afd_jax.data.extra import Quiet
from afd_jax.engine.state import TrainState
from afd_jax.errors import SettingError, StorageError, first_line
from afd_jax.runs import checksums
from afd_jax.runs.processes import is_lost

Check = Callable[[dict[str, Any]], None]
"""Raises SettingError for settings that are not the run's."""

_logger = logging.getLogger("afd_jax")

_PARTS = ("params", "statistics")  # of a network's state, what its forward pass needs
_OWN = {"of", "checksum"}  # of a checkpoint's notes; the others are the caller's

KEPT = 2
"""So many checkpoints of a run stay."""


class Checkpoints:
    """The checkpoints of one run, the newest few.

    Args:
      folder: where they are.
      settings: of the run, as config.json has them.
      check: compares those of a checkpoint with them.
      keep: how many.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        settings: dict[str, Any] | None = None,
        check: Check | None = None,
        keep: int = KEPT,
    ):
        _quiet()
        self._folder = folder.resolve()
        self._settings, self._check = settings, check
        self._saving: int | None = None
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, state: TrainState, notes: dict[str, Any]) -> None:
        """Starts saving; training may go on meanwhile.

        Args:
          state: of the run.
          notes: what else must survive, JSON values (time spent so far).

        Raises:
          StorageError: if this save or the one before fails.
        """
        step = state.steps_done
        self.require_saved()
        if step not in self._manager.all_steps():
            own = {
                "step": step,
                "settings": self._settings,
                "versions": _versions(),
                "arrays": checksums.of_arrays(state),
            }
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                notes=ocp.args.JsonSave(checksums.sealed({**notes, "of": own})),
            )
            self._saving = step
            with _failing(self._folder, step):
                self._manager.save(step, args=items, force=True)

    def require_saved(self) -> None:
        """Raises StorageError if a save in the background has failed; does not wait for one."""
        with _failing(self._folder, self._saving):
            self._manager.check_for_errors()

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Returns the newest state that can be read, and its notes, or None if there is none.

        A checkpoint that cannot be read, newer than one that can, is moved out of the way.

        Args:
          like: a state of the same shape, whose placement on devices is taken over.

        Raises:
          SettingError: if there are checkpoints and none can be read, or the newest is of another
            run.
        """
        wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(wanted), notes=ocp.args.JsonRestore()
        )
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._manager.restore(step, args=items)
                _require_unchanged(restored["notes"], checksums.of_arrays(restored["state"]))
            except Exception as error:  # Orbax, TensorStore and JSON each have their own
                if is_lost(error):  # then nothing is known about the files
                    raise
                damaged[step] = first_line(error)
                continue
            notes = restored["notes"]
            _require_own(self._folder / str(step), notes, restored["state"].steps_done, self._check)
            self._set_aside(damaged)
            return restored["state"], {k: v for k, v in notes.items() if k not in _OWN}
        if damaged:
            raise _unreadable(self._folder, damaged)
        return None

    def _set_aside(self, damaged: dict[int, str]) -> None:
        for step, reason in damaged.items():
            name = f"damaged_checkpoint_{step}"
            count = len(list(self._folder.parent.glob(f"{name}*")))
            aside = self._folder.parent / (f"{name}_{count + 1}" if count else name)
            if jax.process_index() == 0:
                _logger.warning("checkpoint %d is damaged, moved to %s (%s)", step, aside, reason)
                (self._folder / str(step)).rename(aside)
        if damaged:
            if jax.process_count() > 1:
                multihost_utils.sync_global_devices("damaged checkpoints")
            self._manager.reload()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Waits until everything is on disk; not if somebody is in a hurry."""
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            return
        try:
            with _failing(self._folder, self._saving):
                self._manager.wait_until_finished()
        except StorageError:
            if kind is None:  # else that error has been raised already, or another matters more
                raise
        finally:
            self._manager.close()


@contextlib.contextmanager
def _failing(folder: pathlib.Path, step: int | None) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Orbax, TensorStore and the system each have their own
        if is_lost(error):
            raise
        words = f"checkpoint {step} cannot be saved in {folder}: {_cause(error)}"
        raise StorageError(words) from error


def _cause(error: Exception) -> str:
    """What the system said, if it can be found among the words; else how they begin."""
    causes = (os.strerror(number) for number in (errno.ENOSPC, errno.EROFS, errno.EACCES))
    return next((words for words in causes if words in str(error)), first_line(error)[:200])


_QUIET = Quiet("orbax", logging.CRITICAL)


def _quiet() -> None:
    """Orbax logs a traceback for each of its threads that fails; we raise the error and say it."""
    logging.getLogger("absl").addFilter(_QUIET)


def _versions() -> dict[str, str]:
    names = ("afd-jax", "flax", "jax", "orbax-checkpoint")
    return {name: importlib.metadata.version(name) for name in names}


def _require_own(path: pathlib.Path, notes: dict[str, Any], step: int, check: Check | None) -> None:
    """Raises SettingError for a checkpoint of another run, or under another step's name.

    Those of before settings were noted cannot be told apart.
    """
    of = notes.get("of")
    if str(step) != path.name or (of and of["step"] != step):
        found = step if of is None else of["step"]
        remedy = f"holds the state of step {found}; put the run's own checkpoint back, or remove it"
        raise SettingError("--workdir", str(path), remedy)
    if check is None or not of or not of["settings"]:
        return
    try:
        check(of["settings"])
    except SettingError as error:
        remedy = f"is a checkpoint of another run: {error.field} is {error.value!r} here; put the "
        remedy += "run's own back, or remove it"
        raise SettingError("--workdir", str(path), remedy) from error


def _require_unchanged(notes: dict[str, Any], found: dict[str, str]) -> None:
    """Raises ValueError for a damaged checkpoint; those of before checksums cannot be told."""
    checksums.require_whole(notes)
    if noted := notes.get("of", {}).get("arrays"):
        checksums.require_same(noted, found)


def load_variables(
    folder: pathlib.Path,
    networks: Sequence[str],
    check: Check | None = None,
    expected: int | None = None,
) -> tuple[int, dict[str, dict[str, Any]]] | None:
    """Reads some networks' variables from the newest readable checkpoint; writes nothing.

    A newer one that cannot be read is named in a warning.

    Args:
      folder: of the checkpoints.
      networks: their names.
      check: compares a checkpoint's settings with the run's.
      expected: step that it should be of; another is used with a warning.

    Returns:
      (step, by network {"params": ..., "batch_stats": ...} as NumPy arrays), all of one checkpoint;
      None if there is none.

    Raises:
      SettingError: if there are checkpoints and none can be read.
    """
    _quiet()
    manager = ocp.CheckpointManager(
        folder.resolve(),
        options=ocp.CheckpointManagerOptions(read_only=True),
        item_handlers={
            "state": ocp.PyTreeCheckpointHandler(),
            "notes": ocp.JsonCheckpointHandler(),
        },
    )
    damaged: dict[int, str] = {}
    with manager:
        for step in sorted(manager.all_steps(), reverse=True):
            try:
                own, notes = _variables(manager, step, networks)
            except Exception as error:  # as in `restore`
                damaged[step] = first_line(error)
                continue
            _require_own(folder / str(step), notes, step, check)
            for other, reason in damaged.items():
                words = "checkpoint %d in %s cannot be read (%s): using checkpoint %d"
                _logger.warning(words, other, folder, reason[:200], step)
            if expected is not None and expected not in (step, *damaged):
                words = "summary.json is of step %s, but checkpoint %s/%d is the newest: using it"
                _logger.warning(words, expected, folder, step)
            return step, own
    if damaged:
        raise _unreadable(folder, damaged)
    return None


def _variables(
    manager: ocp.CheckpointManager, step: int, networks: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """By network, and the checkpoint's notes."""
    stored = manager.item_metadata(step)["state"].tree
    paths, treedef = jax.tree.flatten_with_path(stored)
    is_ours = [_is_of(path, networks) for path, _ in paths]
    wanted = jax.tree.unflatten(treedef, [0 if own else ocp.PLACEHOLDER for own in is_ours])
    types = [np.ndarray if own else None for own in is_ours]
    how = jax.tree.unflatten(treedef, [ocp.RestoreArgs(restore_type=t) for t in types])
    items = ocp.args.Composite(
        state=ocp.args.PyTreeRestore(item=wanted, restore_args=how), notes=ocp.args.JsonRestore()
    )
    restored = manager.restore(step, args=items)
    found, read = {}, {}
    for name in networks:
        own = restored["state"]["networks"][name]
        for part in _PARTS:
            at = f"networks/{name}/{part}/network/"
            read.update(checksums.of_arrays(own[part]["network"], at))
        found[name] = {"params": own["params"]["network"], **own["statistics"]["network"]}
    _require_unchanged(restored["notes"], read)
    return found, restored["notes"]


def _unreadable(folder: pathlib.Path, damaged: dict[int, str]) -> SettingError:
    step, reason = max(damaged.items())
    remedy = f"no checkpoint can be read (step {step}: {reason[:200]}); put a copy back, or name "
    return SettingError("--workdir", str(folder), f"{remedy}another --workdir")


def _is_of(path: Any, networks: Sequence[str]) -> bool:
    names = [str(getattr(key, "key", getattr(key, "idx", None))) for key in path[:4]]
    return names in [["networks", name, part, "network"] for name in networks for part in _PARTS]
