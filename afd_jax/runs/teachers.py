"""Frozen teachers: from folders of finished runs or PyTorch files, checked against the data."""

import dataclasses
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from afd_jax.data import Recipe
from afd_jax.engine import seeds
from afd_jax.engine.build import numbered
from afd_jax.errors import SettingError, one_of
from afd_jax.networks import NAMES, create
from afd_jax.networks.functional import functional
from afd_jax.networks.pytorch_names import from_pytorch
from afd_jax.runs.prerequisites import Source
from afd_jax.runs.pytorch_files import read_tensors
from afd_jax.runs.trained import TrainedNetwork, Trust, load
from afd_jax.runs.workdir import Workdir, read_json


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A frozen network.

    Attributes:
      name: of the network.
      method: that trained it; "PyTorch" for weights from a file.
      module: Linen or NNX.
      variables: as `engine.init.init_state` takes them; None as long as it is not trained.
      folder: of the run that it comes from, or the file, as text.
    """

    name: str
    method: str
    module: Any
    variables: Any
    folder: str

    @property
    def digest(self) -> str:
        """A fingerprint of the variables."""
        return fingerprint(self.variables)


def fingerprint(variables: Any) -> str:
    """The SHA-256 of arrays, in the order of their names."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(variables):
        digest.update(np.asarray(leaf).tobytes())  # bfloat16, too
    return digest.hexdigest()


def load_teachers(
    found: Sequence[Source],
    *,
    image_shape: Sequence[int],
    classes: int,
    recipe: Recipe | None,
    count: int = 1,
    trust: Trust = False,
) -> dict[str, Teacher]:
    """Reads the teachers, by node; of one that is to be trained first, only the module.

    Args:
      found: where they are.
      image_shape: (height, width, channels) of the data.
      classes: of the data.
      recipe: whose normalisation the teachers must share; None if it is not known.
      count: of seeds; the n-th gets the n-th seed of a teacher's run, or its only one.
      trust: as for `runs.trained.load`.

    Raises:
      SettingError: if a folder holds no finished run, or one of other classes, image size,
        normalisation or number of seeds.
    """
    teachers = {}
    for n, (name, source) in enumerate(zip(numbered(["teacher"] * len(found)), found, strict=True)):
        field = f"teachers[{n}]"
        try:
            teachers[name] = _load(field, source, image_shape, classes, recipe, count, trust)
        except SettingError as error:
            if error.field == field:
                raise
            remedy = f"{error.field} = {error.value!r}: {error.remedy}"
            raise SettingError(field, source.setting, remedy) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            remedy = f"config.json or data.json in {source.folder} is damaged ({error!r})"
            raise SettingError(field, source.setting, remedy) from error
    return teachers


def _load(
    field: str,
    source: Source,
    image_shape: Sequence[int],
    classes: int,
    recipe: Recipe | None,
    count: int,
    trust: Trust,
) -> Teacher:
    if source.network is not None:
        module = create(source.network, classes)  # finds wrong names before anything is trained
        if source.file is not None:
            own = from_file(field, source.setting, source.file, module, image_shape)
            own = seeds.join([own] * count)
            return Teacher(source.network, "PyTorch", module, own, str(source.file))
        if not Workdir(source.folder).summary.is_file():
            return Teacher(source.network, "independent", module, None, str(source.folder))
    _check(field, source, image_shape, classes, recipe)
    each = each_seed(field, source, count, trust)
    variables = seeds.join([network.variables for network in each])
    method = Workdir(source.folder).settings()["method"]["name"]
    return Teacher(each[0].name, method, each[0].module, variables, str(source.folder))


def _check(
    field: str, source: Source, image_shape: Sequence[int], classes: int, recipe: Recipe | None
) -> None:
    hint = f"or a network's name: {one_of(source.setting, NAMES)}"
    if pathlib.Path(source.setting).is_file():
        hint = f"or name the network of this file, 'resnet56={source.setting}'"
    data = data_of_finished(field, source, hint)
    wanted = {"classes": classes, "image_shape": list(image_shape)}
    for name, value in wanted.items():
        if data[name] != value:
            what = "classes" if name == "classes" else "images of shape"
            remedy = f"the teacher learned {what} {data[name]}, the data here have {value}"
            raise SettingError(field, source.setting, remedy)
    for name in ("mean", "std") if recipe is not None else ():
        own = getattr(recipe, name)
        if not np.allclose(data[name], own, rtol=1e-5, atol=0):
            remedy = f"the teacher's images had data.{name} {tuple(data[name])}, here it is "
            remedy += f"{tuple(own)}; set config.data.{name} to the teacher's"
            raise SettingError(field, source.setting, remedy)


def data_of_finished(field: str, source: Source, otherwise: str) -> dict[str, Any]:
    """What data.json of a finished run holds.

    Args:
      field: of the setting, for errors.
      source: the run.
      otherwise: what else may be given, for errors.

    Raises:
      SettingError: if there is no run in the folder, or it is not finished.
    """
    folder = Workdir(source.folder)
    if not folder.config.is_file() or not folder.data.is_file():
        remedy = f"no run in this folder; give the folder of a finished run, {otherwise}"
        raise SettingError(field, source.setting, remedy)
    if not folder.summary.is_file():
        remedy = "that run is not finished (no summary.json); the command that began it continues"
        raise SettingError(field, source.setting, remedy)
    return read_json(folder.data)


def require_class_names(field: str, found: Sequence[Source], class_names: Sequence[str]) -> None:
    """Raises SettingError for a run that learned other classes, or these in another order.

    Runs and data that have only numbers for names are not compared.
    """
    numbers = [*map(str, range(len(class_names)))]
    for n, source in enumerate(found):
        data = Workdir(source.folder).data
        if source.file is not None or not data.is_file():
            continue
        learned = read_json(data).get("class_names") or numbers
        if numbers not in (learned, [*class_names]) and learned != [*class_names]:
            remedy = f"that run learned {len(learned)} classes, the data here have {len(numbers)}"
            if len(learned) == len(numbers):
                pairs = enumerate(zip(learned, class_names, strict=True))
                first = next(i for i, (a, b) in pairs if a != b)
                remedy = f"class {first} of that run is {learned[first]!r}, here it is "
                remedy += f"{class_names[first]!r}; the classes must be the same, in the same order"
            raise SettingError(f"{field}[{n}]", source.setting, remedy)


def from_file(
    field: str, setting: str, file: pathlib.Path, module: Any, image_shape: Sequence[int]
) -> dict[str, Any]:
    """Variables of a network, in float32, from a file of PyTorch weights.

    Raises:
      SettingError: if the file cannot be read, or holds another network's weights.
    """
    tensors = read_tensors(field, setting, file)
    try:
        variables = from_pytorch(tensors, module, image_shape)
    except ValueError as error:
        raise SettingError(field, setting, str(error)) from error
    return jax.tree.map(np.float32, variables)


def _check_shapes(field: str, source: Source, network: TrainedNetwork, shape: Any) -> None:
    images = jax.ShapeDtypeStruct((1, *shape), np.float32)
    wanted = jax.eval_shape(functional(network.module).init, jax.random.key(0), images)
    shapes = [jax.tree.map(np.shape, tree) for tree in (dict(wanted), network.variables)]
    if shapes[0] != shapes[1]:
        remedy = "its checkpoint is not one of the network that its config.json names"
        raise SettingError(field, source.setting, remedy)


def each_seed(field: str, source: Source, count: int, trust: Trust = False) -> list[TrainedNetwork]:
    """The network of a run for each of `count` seeds; a run of one seed has one for all.

    Raises:
      SettingError: if the run has another number of seeds, or the node is no single network.
    """
    settings = Workdir(source.folder).settings()
    first, its = settings["seed"], settings["seeds"]
    if its not in (1, count):
        remedy = f"that run has {its} seeds, this one {count}; as many are needed, or one for all"
        raise SettingError(field, source.setting, remedy)
    each = [load(source.folder, source.node, seed=first + s, trust=trust) for s in range(its)]
    _check_shapes(field, source, each[0], read_json(Workdir(source.folder).data)["image_shape"])
    if each[0].output:
        remedy = "that node is made of several networks; choose a network or a branch"
        raise SettingError(field, source.setting, remedy)
    return each * (count // its)
