"""Runs that come before a run: teachers, generations, and what a method trains on a teacher.

Each is an ordinary run in a folder of its own below that of the run that needs it, so that it is
stopped, continued and looked at like any other.
"""

import copy
import dataclasses
import pathlib
import re
from collections.abc import Callable

import ml_collections

from afd_jax.runs.durations import scaled
from afd_jax.errors import SettingError, require_number
from afd_jax.methods import METHODS, method_options
from afd_jax.networks import NAMES

# Added to the seed, so that no two networks start alike.
_TEACHER, _GENERATION = 1_000, 1_000_000


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a teacher comes from.

    Attributes:
      setting: as the settings have it, for errors.
      network: name of the network that is trained in `folder` first; None if that is there.
      folder: of a run.
      node: of that run.
      prepared: folder of the run that trains the method's layers on this teacher; None if there
        are none.
    """

    setting: str
    network: str | None
    folder: pathlib.Path
    node: int = 0
    prepared: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True)
class Stage:
    """A run that comes before.

    Attributes:
      name: for people.
      folder: of the run.
      config: its settings.
      first: it needs no other stage.
    """

    name: str
    folder: pathlib.Path
    config: ml_collections.ConfigDict
    first: bool = True


def sources(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[Source]:
    """Where the teachers of a run come from.

    Args:
      config: of the run.
      workdir: its folder.

    Raises:
      SettingError: if the setting is no list of names and folders, or generations do not fit.
    """
    require_number("generations", config.generations, least=1, most=1000, whole=True)
    entries = config.teachers
    if not isinstance(entries, list | tuple) or not all(isinstance(e, str) and e for e in entries):
        remedy = "must be a list of folders and names, ('runs/teacher', 'resnet32')"
        raise SettingError("teachers", entries, remedy)
    if config.generations > 1:
        if len(config.networks) != 1:
            remedy = "a chain of generations has one network; name one"
            raise SettingError("networks", tuple(config.networks), remedy)
        (name,) = config.networks
        folder = workdir / f"generation_{config.generations - 1}"
        found = [Source(name, name, folder)]
    else:
        found = [_source(entry, workdir / f"teacher_{n}") for n, entry in enumerate(entries)]
    if _preparation(config) is None:
        return found
    return [
        dataclasses.replace(source, prepared=workdir / f"prepared_{n}")
        for n, source in enumerate(found)
    ]


def names_network(entry: str) -> bool:
    """Whether an entry of `config.teachers` is a network to train, not a folder."""
    return entry in NAMES or re.fullmatch(r"[\w.]+:\w+", entry) is not None


def _source(entry: str, own: pathlib.Path) -> Source:
    if names_network(entry):
        return Source(entry, entry, own)
    folder, at, node = entry.rpartition("@")
    if not at or pathlib.Path(entry).is_dir():
        folder, node = entry, "0"
    if not node.isdecimal():
        raise SettingError("teachers", entry, "must name a node by its number, 'runs/pair@1'")
    return Source(entry, None, pathlib.Path(folder), int(node))


def stages(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[Stage]:
    """What must be trained before a run, in order. Arguments and errors as in `sources`."""
    found = sources(config, workdir)
    before: list[Stage] = []
    if config.generations > 1:
        for g in range(1, config.generations):
            before.append(_generation(config, workdir, g))
    else:
        for n, source in enumerate(found):
            if source.network is not None:
                alone = _variant(config, _alone, _TEACHER * (n + 1))
                alone.networks = (source.network,)
                before.append(Stage(f"teacher {n}, {source.network}", source.folder, alone))
    preparation = _preparation(config)
    if preparation:
        method, share = preparation
        for n, source in enumerate(found):
            prepared = _variant(config, _alone)
            with prepared.unlocked():
                prepared.method = method
            prepared.networks = ()
            prepared.teachers = (f"{source.folder.absolute()}@{source.node}",)
            prepared.duration = scaled(config.duration, share)
            assert source.prepared is not None
            name = f"{method['name']} of teacher {n}"
            before.append(Stage(name, source.prepared, prepared, first=False))
    most = 2**32 - max([stage.config.seed - config.seed for stage in before], default=0)
    require_number("seed", config.seed, least=0, most=most - config.seeds, whole=True)
    if before:  # else the next teacher's seeds would be among them
        require_number("seeds", config.seeds, least=1, most=_TEACHER, whole=True)
    return before


def _generation(config: ml_collections.ConfigDict, workdir: pathlib.Path, g: int) -> Stage:
    if g == 1 and not config.teachers:
        own = _variant(config, _alone, _GENERATION * g)
    else:
        own = _variant(config, _same, _GENERATION * g)
        if g > 1:
            own.teachers = (str((workdir / f"generation_{g - 1}").absolute()),)
    folder = workdir / f"generation_{g}"
    return Stage(f"generation {g} of {config.generations}", folder, own, first=g == 1)


def _variant(
    config: ml_collections.ConfigDict,
    change: Callable[[ml_collections.ConfigDict], None],
    seed: int = 0,
) -> ml_collections.ConfigDict:
    """The same recipe, one generation, with another seed."""
    own = copy.deepcopy(config)
    own.seed = config.seed + seed
    own.generations = 1
    own.alone = False
    change(own)
    return own


def _same(config: ml_collections.ConfigDict) -> None:
    """The method of the run."""


def _alone(config: ml_collections.ConfigDict) -> None:
    """Labels alone."""
    with config.unlocked():
        config.method = {"name": "independent"}
    config.teachers = ()
    config.graph = "own"


def _preparation(config: ml_collections.ConfigDict) -> tuple[dict, float] | None:
    options = config.method.to_dict()
    name = options.pop("name", None)
    if name not in METHODS:
        return None
    return METHODS[name].preparation({**method_options(name), **options})
