"""Using a network that a run has trained: no data, no trainer, no other network is needed."""

import dataclasses
import pathlib
from typing import Any

import jax
from flax import linen as nn

from afd_jax.checkpoint import load_variables
from afd_jax.cohort import as_outputs
from afd_jax.data.recipe import Recipe
from afd_jax.errors import SettingError
from afd_jax.networks import create
from afd_jax.networks.outputs import Outputs
from afd_jax.workdir import Workdir, read_json


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
    """A network with its parameters and the normalisation it was trained with.

    Attributes:
      module: the Flax module.
      variables: {"params": ..., "batch_stats": ...}, for `module.apply`.
      recipe: `recipe.normalise` turns uint8 images into the network's input.
    """

    module: nn.Module
    variables: dict[str, Any]
    recipe: Recipe

    def __call__(self, images: jax.typing.ArrayLike) -> Outputs:
        """Classifies images [batch, height, width, channels] uint8, with running statistics."""
        normalised = self.recipe.normalise(jax.numpy.asarray(images))
        return as_outputs(self.module.apply(self.variables, normalised, train=False))


def load_network(workdir: str | pathlib.Path, node: int) -> TrainedNetwork:
    """Loads one network from the newest checkpoint of a run.

    Args:
      workdir: folder of the run; nothing is written there.
      node: number of the network, in the order of the config; twins that learned alone follow.

    Raises:
      SettingError: if there is no run, no checkpoint, or no such node.
    """
    folder = Workdir(pathlib.Path(workdir))
    if not folder.config.is_file() or not folder.data.is_file():
        raise SettingError("workdir", str(workdir), "no run in this folder (no config.json)")
    config, data = folder.settings(), read_json(folder.data)
    names = config["networks"] * (2 if config["alone"] else 1)
    if node not in range(len(names)):
        raise SettingError("node", node, f"the run has the nodes 0 to {len(names) - 1}")
    variables = load_variables(folder.checkpoints, node) if folder.checkpoints.is_dir() else None
    if variables is None:
        raise SettingError("workdir", str(workdir), "no checkpoint in this folder")
    recipe = Recipe(mean=data["mean"], std=data["std"])
    return TrainedNetwork(create(names[node], data["classes"]), variables, recipe)
