"""Prerequisites: runs that come before a run, of teachers and generations.

Each is an ordinary run in a folder of its own below that of the run that needs it, so that it is
stopped, continued and looked at like any other.
"""

import copy
import dataclasses
import os
import pathlib
import re

import ml_collections

from afd_jax.errors import SettingError, require_number, require_path
from afd_jax.networks import NAMES
from afd_jax.runs.bucket import at_hand

# Added to the seed, so that no two networks start alike.
_TEACHER, _GENERATION = 1_000, 1_000_000


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a teacher comes from.

    Attributes:
      setting: as the settings have it, for errors.
      network: name of the network that is trained in `folder` first, or whose weights are in
        `file`; None if a run is there.
      folder: of a run.
      node: of that run, by name; its only student if None.
      file: of PyTorch weights, instead of a run; then there is no `folder`.
    """

    setting: str
    network: str | None
    folder: pathlib.Path = pathlib.Path()
    node: str | None = None
    file: pathlib.Path | None = None

    @property
    def trained_first(self) -> bool:
        """Whether a network is trained in the folder before the run."""
        return self.network is not None and self.file is None


@dataclasses.dataclass(frozen=True)
class Prerequisite:
    """A run that comes before.

    Attributes:
      name: for people.
      folder: of the run.
      config: its settings.
      first: it needs no other prerequisite.
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
        remedy = "must be a list of folders, names and files, "
        remedy += "('runs/teacher', 'resnet32', 'resnet56=FILE.pth')"
        raise SettingError("teachers", entries, remedy)
    if config.generations > 1:
        if len(config.networks) != 1:
            remedy = "a chain of generations has one network; name one"
            raise SettingError("networks", tuple(config.networks), remedy)
        if config.init_from:
            remedy = "each generation starts at random; leave it empty"
            raise SettingError("init_from", tuple(config.init_from), remedy)
        (name,) = config.networks
        return [Source(name, name, workdir / f"generation_{config.generations - 1}")]
    for n, entry in enumerate(entries):
        require_path(f"teachers[{n}]", entry)
    return [_source(entry, workdir / f"teacher_{n}") for n, entry in enumerate(entries)]


def names_network(entry: str) -> bool:
    """Whether an entry of `config.teachers` is a network to train, not a folder."""
    return entry in NAMES or re.fullmatch(r"[\w.]+:\w+", entry) is not None


def in_file(entry: str) -> tuple[str, str] | None:
    """Network and file that an entry of `config.teachers` names; None if it names no file.

    >>> in_file("resnet56=weights/lr=0.1/best.pth")
    ('resnet56', 'weights/lr=0.1/best.pth')
    >>> in_file("runs/lr=0.1@resnet56")
    """
    match = re.fullmatch(r"([\w.:-]+)=(.+)", entry)
    return None if match is None or pathlib.Path(entry).is_dir() else (match[1], match[2])


def _source(entry: str, own: pathlib.Path) -> Source:
    if names_network(entry):
        return Source(entry, entry, own)
    if named := in_file(entry):
        return Source(entry, named[0], file=pathlib.Path(os.path.expanduser(named[1])))
    return of_run(entry)


def of_run(entry: str) -> Source:
    """The run, and perhaps node, that "FOLDER" or "FOLDER@NODE" names."""
    folder, at, node = entry.rpartition("@")
    if not at or pathlib.Path(entry).is_dir():
        return Source(entry, None, at_hand(entry))
    return Source(entry, None, at_hand(folder), node)


def prerequisites(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[Prerequisite]:
    """What must be trained before a run, in order. Arguments and errors as in `sources`."""
    before: list[Prerequisite] = []
    found = sources(config, workdir)
    if config.generations > 1:
        before = [_generation(config, workdir, g) for g in range(1, config.generations)]
    else:
        for n, source in enumerate(found):
            if source.network is not None and source.trained_first:
                alone = _variant(config, _TEACHER * (n + 1), labels_only=True)
                alone.networks, alone.init_from = (source.network,), ()
                name = f"teacher {n}, {source.network}"
                before.append(Prerequisite(name, source.folder, alone))
    most = 2**32 - max([own.config.seed - config.seed for own in before], default=0)
    require_number("seed", config.seed, least=0, most=most - config.seeds, whole=True)
    if before:  # else the next teacher's seeds would be among them
        require_number("seeds", config.seeds, least=1, most=_TEACHER, whole=True)
    return before


def _generation(config: ml_collections.ConfigDict, workdir: pathlib.Path, g: int) -> Prerequisite:
    if g == 1 and not config.teachers:
        own = _variant(config, _GENERATION * g, labels_only=True)
    else:
        own = _variant(config, _GENERATION * g)
        if g > 1:
            own.teachers = (str((workdir / f"generation_{g - 1}").absolute()),)
    folder = workdir / f"generation_{g}"
    return Prerequisite(f"generation {g} of {config.generations}", folder, own, first=g == 1)


def _variant(
    config: ml_collections.ConfigDict, seed: int, *, labels_only: bool = False
) -> ml_collections.ConfigDict:
    """The same recipe, one generation, with another seed.

    With `labels_only` there is no method, teacher or graph, and no divergence to watch.
    """
    own = copy.deepcopy(config)
    own.seed = config.seed + seed
    own.generations = 1
    own.twins = own.averages = False
    if labels_only:
        with own.unlocked():
            own.method = {"name": "independent"}
        own.teachers = ()
        own.graph = "own"
        own.second_forward = own.own_augmentation = False
        if own.early_stopping.watch == "divergence":
            own.early_stopping.patience = 0
    return own
