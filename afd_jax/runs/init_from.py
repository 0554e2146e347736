"""What networks start from, if not at random: weights of finished runs or of PyTorch files."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections

from afd_jax.engine import seeds
from afd_jax.engine.init import difference
from afd_jax.engine.plan import Network
from afd_jax.errors import SettingError, require_path
from afd_jax.networks.functional import draw
from afd_jax.runs.prerequisites import Source, of_run
from afd_jax.runs.pytorch_files import SUFFIXES
from afd_jax.runs.teachers import data_of_finished, each_seed, fingerprint, from_file
from afd_jax.runs.trained import Trust


@dataclasses.dataclass(frozen=True)
class Start:
    """What one network starts from.

    Attributes:
      origin: folder or file, as the settings have it.
      variables: parameters and statistics, with an axis of seeds if there are several.
    """

    origin: str
    variables: Any

    @property
    def digest(self) -> str:
        """A fingerprint of the variables."""
        return fingerprint(self.variables)


def start_sources(config: ml_collections.ConfigDict) -> list[Source]:
    """Where the networks' weights come from: one for each, one for all, or none.

    Raises:
      SettingError: if the setting is no list of as many files and folders, or one is not there.
    """
    entries, count = config.init_from, len(config.networks)
    if not isinstance(entries, list | tuple) or not all(isinstance(e, str) and e for e in entries):
        remedy = "must be a list of files and folders, ('resnet56.pth', 'runs/a@resnet14')"
        raise SettingError("init_from", entries, remedy)
    if len(entries) not in (0, 1, count):
        remedy = f"give one for each of the {count} networks, or one for all"
        raise SettingError("init_from", tuple(entries), remedy)
    return [_source(f"init_from[{n}]", entry) for n, entry in enumerate(entries)]


def _source(field: str, entry: str) -> Source:
    require_path(field, entry)
    file = pathlib.Path(os.path.expanduser(entry))
    if file.is_file():
        return Source(entry, None, file=file)
    if file.suffix in SUFFIXES and not file.is_dir():
        remedy = "there is no such file; here a file stands alone, its network is the one it is for"
        raise SettingError(field, entry, remedy)
    source = of_run(entry)
    data_of_finished(field, source, "or a file of PyTorch weights")
    return source


def load_starts(
    found: Sequence[Source],
    networks: Mapping[str, Network],
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    count: int = 1,
    trust: Trust = False,
) -> dict[str, Start]:
    """Reads what the networks start from, by name.

    Args:
      found: as `start_sources` gives it.
      networks: of the plan; its students are meant, in order.
      image_shape: (height, width, channels) of the data.
      classes: of the data.
      count: of seeds; the n-th gets the n-th seed of a run, or its only one.
      trust: as for `runs.trained.load`.

    Raises:
      SettingError: if weights cannot be read, or are not those of the network that they are for.
    """
    own = [network for network in networks.values() if network.role == "student"]
    if found and any(len(network.nodes) > 1 for network in own):
        remedy = "a network in branches starts at random; leave it out"
        raise SettingError("init_from", tuple(source.setting for source in found), remedy)
    each = list(enumerate(found)) * (len(own) if len(found) == 1 else 1)
    starts: dict[str, Start] = {}
    for network, (n, source) in zip(own, each, strict=True) if each else ():
        field = f"init_from[{n}]"
        try:
            variables = _load(field, source, network, image_shape, classes, count, trust)
        except SettingError as error:
            remedy = error.remedy
            if error.field != field:
                remedy = f"{error.field} = {error.value!r}: {remedy}"
            raise SettingError(field, source.setting, f"for {network.name}: {remedy}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            remedy = f"config.json or data.json in {source.folder} is damaged ({error!r})"
            raise SettingError(field, source.setting, remedy) from error
        starts[network.name] = Start(source.setting, variables)
    return starts


def _load(
    field: str,
    source: Source,
    network: Network,
    image_shape: tuple[int, int, int],
    classes: int,
    count: int,
    trust: Trust,
) -> Any:
    if source.file is not None:
        module = network.module.module
        own = from_file(field, source.setting, source.file, module, image_shape)
        return seeds.join([own] * count)
    learned = data_of_finished(field, source, "or a file of PyTorch weights")["classes"]
    if learned != classes:
        remedy = f"that run learned {learned} classes, the data here have {classes}"
        raise SettingError(field, source.setting, remedy)
    each = [trained.variables for trained in each_seed(field, source, count, trust)]
    shapes = functools.partial(draw, network.module, image_shape, network.start)
    wrong = difference(each[0], jax.eval_shape(shapes, jax.random.key(0)))
    if wrong is not None:
        raise SettingError(field, source.setting, f"weights of another network; {wrong}")
    return seeds.join(each)
