"""Saving and restoring a run with Orbax."""

import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from afd_jax.engine.state import TrainState
from afd_jax.errors import SettingError, first_line

_logger = logging.getLogger("afd_jax")


class Checkpoints:
    """The checkpoints of one run, the newest few.

    Args:
      folder: where they are.
      keep: how many.
    """

    def __init__(self, folder: pathlib.Path, keep: int = 2):
        logging.getLogger("absl").setLevel(logging.ERROR)
        self._folder = folder.resolve()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, state: TrainState, notes: dict[str, Any]) -> None:
        """Starts saving; training may go on meanwhile.

        Args:
          state: of the run.
          notes: what else must survive, JSON values (time spent so far).
        """
        step = state.steps_done
        if step not in self._manager.all_steps():
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave(notes)
            )
            self._manager.save(step, args=items, force=True)

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Returns the newest state that can be read, and its notes, or None if there is none.

        A checkpoint that cannot be read, newer than one that can, is moved out of the way.

        Args:
          like: a state of the same shape, whose placement on devices is taken over.

        Raises:
          SettingError: if there are checkpoints and none can be read.
        """
        wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(wanted), notes=ocp.args.JsonRestore()
        )
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._manager.restore(step, args=items)
            except Exception as error:  # Orbax, TensorStore and JSON each have their own
                damaged[step] = first_line(error)
                continue
            self._set_aside(damaged)
            return restored["state"], restored["notes"]
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

    def __exit__(self, *_: object) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def load_variables(
    folder: pathlib.Path, networks: Sequence[str]
) -> tuple[int, dict[str, dict[str, Any]]] | None:
    """Reads some networks' variables from the newest readable checkpoint; writes nothing.

    Args:
      folder: of the checkpoints.
      networks: their names.

    Returns:
      (step, by network {"params": ..., "batch_stats": ...} as NumPy arrays), all of one checkpoint;
      None if there is none.

    Raises:
      SettingError: if there are checkpoints and none can be read.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)
    manager = ocp.CheckpointManager(
        folder.resolve(),
        options=ocp.CheckpointManagerOptions(read_only=True),
        item_handlers={"state": ocp.PyTreeCheckpointHandler()},
    )
    damaged: dict[int, str] = {}
    with manager:
        for step in sorted(manager.all_steps(), reverse=True):
            try:
                return step, _variables(manager, step, networks)
            except Exception as error:  # as in `restore`
                damaged[step] = first_line(error)
    if damaged:
        raise _unreadable(folder, damaged)
    return None


def _variables(
    manager: ocp.CheckpointManager, step: int, networks: Sequence[str]
) -> dict[str, dict[str, Any]]:
    stored = manager.item_metadata(step)["state"].tree
    paths, treedef = jax.tree.flatten_with_path(stored)
    is_ours = [_is_of(path, networks) for path, _ in paths]
    wanted = jax.tree.unflatten(treedef, [0 if own else ocp.PLACEHOLDER for own in is_ours])
    types = [np.ndarray if own else None for own in is_ours]
    how = jax.tree.unflatten(treedef, [ocp.RestoreArgs(restore_type=t) for t in types])
    items = ocp.args.Composite(state=ocp.args.PyTreeRestore(item=wanted, restore_args=how))
    restored = manager.restore(step, args=items)["state"]["networks"]
    found = {}
    for name in networks:
        own = restored[name]
        found[name] = {"params": own["params"]["network"], **own["statistics"]["network"]}
    return found


def _unreadable(folder: pathlib.Path, damaged: dict[int, str]) -> SettingError:
    step, reason = max(damaged.items())
    remedy = f"no checkpoint can be read (step {step}: {reason[:200]}); put a copy back, or name "
    return SettingError("--workdir", str(folder), f"{remedy}another --workdir")


def _is_of(path: Any, networks: Sequence[str]) -> bool:
    names = [str(getattr(key, "key", getattr(key, "idx", None))) for key in path[:4]]
    parts = ("params", "statistics")
    return names in [["networks", name, part, "network"] for name in networks for part in parts]
