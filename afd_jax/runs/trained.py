"""Using a network that a run has trained: no data, no trainer, no other network is needed."""

import dataclasses
import pathlib
from typing import Any

import jax
from flax import linen as nn

from afd_jax.engine.build import make_peers
from afd_jax.runs.checkpoint import load_variables
from afd_jax.data.recipe import Recipe
from afd_jax.errors import SettingError
from afd_jax.methods import make_method
from afd_jax.networks import create
from afd_jax.networks.branched import single
from afd_jax.networks.outputs import Outputs, as_nodes
from afd_jax.engine.seeds import split
from afd_jax.runs.workdir import Workdir, read_json


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
    """A network with its parameters and the normalisation it was trained with.

    Attributes:
      name: of its node.
      module: the Flax module.
      variables: {"params": ..., "batch_stats": ...}, for `module.apply`.
      recipe: `recipe.normalise` turns uint8 images into the network's input.
      output: which of the module's nodes it is, if the module has several.
    """

    name: str
    module: nn.Module
    variables: dict[str, Any]
    recipe: Recipe
    output: int = 0

    def __call__(self, images: jax.typing.ArrayLike) -> Outputs:
        """Classifies images [batch, height, width, channels] uint8, with running statistics."""
        normalised = self.recipe.normalise(jax.numpy.asarray(images))
        result = self.module.apply(self.variables, normalised, train=False)
        return as_nodes(result)[self.output]


def load_network(
    workdir: str | pathlib.Path, node: int, *, seed: int | None = None
) -> TrainedNetwork:
    """Loads one network from the newest checkpoint of a run.

    Args:
      workdir: folder of the run; nothing is written there.
      node: number of the network, in the order of the config; then its twins that learned alone,
        or its follower. Frozen teachers are in folders of their own.
        Of a network in branches: a branch, as the plain network that it is with the shared stages;
        then what the method made of the branches, as `--dry-run` lists it.
      seed: which of a run's seeds; the first if None.

    Raises:
      SettingError: if there is no run, no checkpoint, or no such node or seed.
    """
    folder = Workdir(pathlib.Path(workdir))
    if not folder.config.is_file() or not folder.data.is_file():
        raise SettingError("workdir", str(workdir), "no run in this folder (no config.json)")
    config, data = folder.settings(), read_json(folder.data)
    names, options = config["networks"], dict(config["method"])
    teachers = 1 if config["generations"] > 1 else len(config["teachers"])
    method = make_method(options.pop("name"), config["graph"], names, options, teachers)
    modules = [create(name, data["classes"]) for name in names]
    peers = make_peers(modules, names, method, alone=config["alone"])
    nodes = [(p, i) for p, peer in enumerate(peers) for i in range(len(peer.nodes))]
    if not nodes:
        remedy = "that run trained layers on a teacher, and has no network of its own"
        raise SettingError("workdir", str(workdir), remedy)
    if node not in range(len(nodes)):
        raise SettingError("node", node, f"the run has the nodes 0 to {len(nodes) - 1}")
    p, index = nodes[node]
    variables = load_variables(folder.checkpoints, p) if folder.checkpoints.is_dir() else None
    if variables is None:
        raise SettingError("workdir", str(workdir), "no checkpoint in this folder")
    first, count = config["seed"], config["seeds"]
    if seed is not None and seed - first not in range(count):
        raise SettingError("seed", seed, f"the run has the seeds {first} to {first + count - 1}")
    variables = split(variables, count)[0 if seed is None else seed - first]
    module, variables, output = single(peers[p].network, variables, index)
    recipe = Recipe(mean=data["mean"], std=data["std"])
    return TrainedNetwork(peers[p].nodes[index], module, variables, recipe, output)
