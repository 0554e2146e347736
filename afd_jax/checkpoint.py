"""Saving and restoring a run with Orbax, and loading one trained network for use elsewhere."""

import logging
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from afd_jax.state import TrainState


class Checkpoints:
    """The checkpoints of one run, the newest few.

    Args:
      folder: where they are.
      keep: how many.
    """

    def __init__(self, folder: pathlib.Path, keep: int = 2):
        logging.getLogger("absl").setLevel(logging.ERROR)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options)

    def save(self, state: TrainState, notes: dict[str, Any]) -> None:
        """Starts saving; training may go on meanwhile.

        Args:
          state: of the run.
          notes: what else must survive, JSON values (time spent so far).
        """
        step = int(state.step)
        if step not in self._manager.all_steps():
            items = ocp.args.Composite(
                state=ocp.args.StandardSave(_saved_form(state)), notes=ocp.args.JsonSave(notes)
            )
            self._manager.save(step, args=items, force=True)

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Returns the newest state and its notes, or None if there is none.

        Args:
          like: a state of the same shape, whose placement on devices is taken over.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, _saved_form(like))
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(wanted), notes=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=items)
        state = restored["state"]
        return like.replace(**{**state, "rng": jax.random.wrap_key_data(state["rng"])}), restored[
            "notes"
        ]

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def _saved_form(state: TrainState) -> dict[str, Any]:
    """Keys as plain integers: the form in which they can be saved."""
    return {"step": state.step, "rng": jax.random.key_data(state.rng), "peers": state.peers}
