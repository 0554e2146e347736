"""Saving and restoring a run with Orbax, and loading one trained network for use elsewhere."""

import json
import logging
import pathlib
from typing import Any

import jax
import ml_collections
import orbax.checkpoint as ocp
from flax import linen as nn

from afd_jax.assemble import assemble
from afd_jax.cohort import init_state
from afd_jax.errors import SettingError
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
                state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave(notes)
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
        wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(wanted), notes=ocp.args.JsonRestore()
        )
        restored = self._manager.restore(step, args=items)
        return restored["state"], restored["notes"]

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def load_network(workdir: str | pathlib.Path, node: int) -> tuple[nn.Module, dict[str, Any]]:
    """Loads one trained network from the newest checkpoint of a run, ready to apply.

    Args:
      workdir: folder of the run.
      node: number of the network, in the order of the config.

    Returns:
      (module, variables): `module.apply(variables, images, train=False)` gives `Outputs`; images
      are float, normalised with the "mean" and "std" of the run.

    Raises:
      SettingError: if there is no run, no checkpoint, or no such node.
    """
    folder = pathlib.Path(workdir)
    file = folder / "config.json"
    if not file.is_file():
        raise SettingError("workdir", str(workdir), "no run in this folder (no config.json)")
    run = assemble(ml_collections.ConfigDict(json.loads(file.read_text())))
    if node not in range(len(run.cohort.peers)):
        raise SettingError("node", node, f"the run has the nodes 0 to {len(run.cohort.peers) - 1}")
    checkpoints = Checkpoints(folder / "checkpoints")
    restored = checkpoints.restore(init_state(run.cohort, jax.random.key(0)))
    checkpoints.close()
    if restored is None:
        raise SettingError("workdir", str(workdir), "no checkpoint in this folder")
    peer = restored[0].peers[node]
    variables = {"params": peer.params["network"], **peer.statistics["network"]}
    return run.cohort.peers[node].network, variables
