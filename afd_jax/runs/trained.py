"""Using a network that a run has trained: no data, no trainer, no other network is needed."""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax

from afd_jax.data.recipe import Recipe
from afd_jax.engine.build import beside, numbered, students
from afd_jax.engine.plan import Network
from afd_jax.engine.seeds import split
from afd_jax.errors import SettingError, one_of
from afd_jax.networks import create
from afd_jax.networks.branched import single
from afd_jax.networks.functional import functional
from afd_jax.networks.outputs import Outputs, as_nodes
from afd_jax.runs.bucket import at_hand
from afd_jax.runs.checkpoint import load_variables
from afd_jax.runs.choices import make_method
from afd_jax.runs.images import as_pixels
from afd_jax.runs.workdir import Workdir, read_json


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
    """A network with its parameters and the normalisation it was trained with.

    Attributes:
      name: of its node.
      module: Linen, or what makes an NNX module.
      variables: {"params": ..., "batch_stats": ...}, as `networks.functional` takes them.
      recipe: `recipe.normalise` turns uint8 images into the network's input.
      output: which of the module's nodes it is, if the module has several.
      image_shape: [height, width, channels] of the images that it was trained with.
      class_names: by class; their numbers if the data has no names.
      step: of the checkpoint.
    """

    name: str
    module: Any
    variables: dict[str, Any]
    recipe: Recipe
    output: int = 0
    image_shape: tuple[int, int, int] | None = None
    class_names: tuple[str, ...] = ()
    step: int | None = None

    def __call__(self, images: Any, *, images_range: tuple[float, float] | None = None) -> Outputs:
        """Classifies images [batch, height, width, channels], with running statistics.

        Args:
          images: uint8, as they come from the data, or floats with their range; not normalised.
          images_range: of float images, (0, 1) or (0, 255).

        Raises:
          SettingError: for images of another type, shape or range.
        """
        pixels = as_pixels(images, self.image_shape, images_range)
        return self._run(self.variables, self.recipe.normalise_pixels(pixels))

    def __getstate__(self) -> dict[str, Any]:
        """Without what is compiled, for copies."""
        return {own.name: getattr(self, own.name) for own in dataclasses.fields(self)}

    @functools.cached_property
    def _run(self) -> Callable[..., Outputs]:
        network = functional(self.module)

        def run(variables: Any, images: jax.Array) -> Outputs:
            result, _ = network.apply(variables, images, train=False)
            return as_nodes(result)[self.output]

        return jax.jit(run)


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """The networks of a run that are in its checkpoints, without their arrays.

    Attributes:
      folder: of the run.
      config: its settings.
      data: what data.json holds.
      networks: students, twins, averages and snapshots, by name; frozen teachers are in folders of
        their own.
    """

    folder: Workdir
    config: Mapping[str, Any]
    data: Mapping[str, Any]
    networks: Mapping[str, Network]

    @property
    def nodes(self) -> dict[str, Network]:
        """The network of each node."""
        return {node: network for network in self.networks.values() for node in network.nodes}

    @property
    def seeds(self) -> range:
        """That trained side by side."""
        return range(self.config["seed"], self.config["seed"] + self.config["seeds"])

    @property
    def recipe(self) -> Recipe:
        """The normalisation that the networks were trained with; no augmentation."""
        return Recipe(mean=self.data["mean"], std=self.data["std"])

    def require_seed(self, seed: int) -> None:
        """Raises SettingError if the run has no such seed."""
        if seed not in self.seeds:
            remedy = f"the run has the seeds {self.seeds[0]} to {self.seeds[-1]}"
            raise SettingError("seed", seed, remedy)

    def variables(self, networks: Sequence[str]) -> tuple[int, dict[int, dict[str, Any]]]:
        """The variables of some networks in the newest checkpoint.

        Returns:
          (step of the checkpoint, by seed and network {"params": ..., "batch_stats": ...}).

        Raises:
          SettingError: if there is no checkpoint, or none can be read.
        """
        folders = self.folder.checkpoints
        summary = self.folder.summary
        steps = read_json(summary).get("steps") if summary.is_file() else None
        found = None
        if folders.is_dir():
            found = load_variables(folders, networks, self.folder.require_own, steps)
        if found is None:
            remedy = "no checkpoint in this folder"
            raise SettingError("workdir", str(self.folder.path), remedy)
        step, variables = found
        return step, dict(zip(self.seeds, split(variables, len(self.seeds)), strict=True))


Trust = bool | Collection[str]
"""Whether code that a folder names may be imported: all of it, none, or some by name."""


def open_run(
    workdir: str | pathlib.Path,
    *,
    trust: Trust = False,
    modules: Mapping[str, Any] | None = None,
) -> TrainedRun:
    """Reads what a run's folder says of its networks; no arrays yet.

    Args:
      workdir: folder of the run.
      trust: import what the run names as "package.module:Class"; True, or a list of such names.
        Networks of this package need none.
      modules: networks by the names of their nodes, which are then not imported.

    Raises:
      SettingError: if there is no run, its files are damaged, or it names code not to be imported.
    """
    folder = Workdir(at_hand(workdir))
    if not folder.config.is_file() or not folder.data.is_file():
        raise SettingError("workdir", str(workdir), "no run in this folder (no config.json)")
    config, data = folder.settings(), folder.read_data()
    names = dict(zip(numbered(config["networks"]), config["networks"], strict=True))
    built = dict(modules or {})
    for node in built:
        if node not in names:
            raise SettingError("modules", node, one_of(node, names))
    _require_trust("method", config["method"], trust)
    for node, name in names.items():
        if node not in built:
            _require_trust("networks", name, trust)
            built[node] = create(name, data["classes"])
    method = make_method(config["method"])
    own = students({node: functional(built[node]) for node in names}, method, data["classes"])
    every = [*own, *beside(own, method, config["twins"], config["averages"])]
    return TrainedRun(folder, config, data, {network.name: network for network in every})


def code_named(setting: Any) -> list[str]:
    """Every "package.module:Class" in a setting, however deep.

    >>> code_named({"name": "mixed", "by_edge": [["a", "b", {"name": "own.methods:Mine"}]]})
    ['own.methods:Mine']
    """
    if isinstance(setting, str):
        if setting.startswith(("(", "[", "{")):  # a list as text
            return re.findall(r"[^\s'\",:(\[{]+:[^\s'\",:)\]}]+", setting)
        return [setting] if ":" in setting else []
    each: Any = setting.values() if isinstance(setting, Mapping) else setting
    if isinstance(setting, Mapping | list | tuple):
        return [name for own in each for name in code_named(own)]
    return []


def _require_trust(field: str, setting: Any, trust: Trust) -> None:
    """Raises SettingError for code of others that the caller did not say may run."""
    if trust is True:
        return
    allowed = [trust] if isinstance(trust, str) else trust or []
    name = next((name for name in code_named(setting) if name not in allowed), None)
    if name is None:
        return
    remedy = "the folder of this run asks for code of yours or of others, which runs when it is "
    remedy += "imported; if you trust the folder, say trust=True (--trust on a command line, "
    remedy += "--config.trust=True for teachers and init_from)"
    remedy += ", or give this network in modules=" if field == "networks" else ""
    raise SettingError(field, name, remedy)


def load(
    workdir: str | pathlib.Path,
    node: str | None = None,
    *,
    seed: int | None = None,
    trust: Trust = False,
    modules: Mapping[str, Any] | None = None,
) -> TrainedNetwork:
    """Loads one network from the newest checkpoint of a run.

    Args:
      workdir: folder of the run; nothing is written there.
      node: its name, as the run's table has it: of a network, its twin, average or snapshot; or of
        a branch, returned with the shared stages as a plain network. May be left out if
        the run has only one student. Frozen teachers are in folders of their own.
      seed: which of a run's seeds; the first if None.
      trust: import networks and a method of one's own, which the run names as
        "package.module:Class": True, or a list of such names. Do so only for a folder whose writer
        you trust: what is imported runs.
      modules: networks by the names of their nodes, {"Small": Small(10)}, in place of importing.

    Raises:
      SettingError: if there is no run, no checkpoint, or no such node or seed, or if the run names
        code that is not to be imported.
    """
    run = open_run(workdir, trust=trust, modules=modules)
    nodes = run.nodes
    own = [name for name, network in nodes.items() if network.role == "student"]
    if node is None and len(own) == 1:
        (node,) = own
    if node not in nodes:
        remedy = f"the run has {', '.join(nodes)}" if node is None else one_of(node, nodes)
        raise SettingError("node", node, remedy)
    network = nodes[node]
    step, by_seed = run.variables([network.name])
    seed = run.seeds[0] if seed is None else seed
    run.require_seed(seed)
    variables = by_seed[seed][network.name]
    index = network.nodes.index(node)
    module, variables, output = single(network.module.module, variables, index)
    shape = tuple(run.data["image_shape"])
    names = tuple(run.data.get("class_names") or map(str, range(run.data["classes"])))
    return TrainedNetwork(node, module, variables, run.recipe, output, shape, names, step)
