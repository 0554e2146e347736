"""What a study is: blocks of settings and seeds, with comparisons inside each block."""

import copy
import dataclasses
import importlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from afd_jax.errors import SettingError, one_of
from afd_jax.runs.overrides import as_json, read_config
from afd_jax.runs.settings import base_config

Recipe = Callable[[ml_collections.ConfigDict, int], None]
"""Sets, for a seed, what all settings of a block have in common: data, optimizers, duration."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to train.

    Attributes:
      name: shown in tables.
      config: a config and its networks, "cifar100_afd:resnet8,resnet14"; the block's recipe
        overrides it.
      changes: fields set after the recipe, {"method.temperature": 1.0}.
      teachers: frozen networks from other settings of the block (or of its `teachers`) with the
        same seed, in place of the config's: "independent@resnet14".
      published: test accuracy in percent by architecture, if a public table has it.
    """

    name: str
    config: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    teachers: Sequence[str] = ()
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def teacher_settings(self) -> list[str]:
        """The names of the settings that its teachers come from."""
        return [*dict.fromkeys(teacher.partition("@")[0] for teacher in self.teachers)]


@dataclasses.dataclass(frozen=True)
class Block:
    """Settings that are compared with each other, in one table.

    Attributes:
      name: shown in tables.
      settings: to compare.
      recipe: shared by all settings.
      seeds: every setting is trained with each of them.
      baseline: the setting that all others are compared with, seed by seed.
      matters: a difference in points that would matter; the table says how many seeds would show
        it.
      teachers: the block that teachers come from, if it is a different one.
    """

    name: str
    settings: Sequence[Setting]
    recipe: Recipe
    seeds: Sequence[int] = tuple(range(10))
    baseline: str = "independent"
    matters: float = 0.5
    teachers: "Block | None" = None

    def setting(self, name: str) -> Setting:
        """The setting with that name."""
        return next(s for s in self.settings if s.name == name)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim from a paper, and the two settings that test it.

    Attributes:
      words: the claim.
      block: the block with both settings.
      setting: should be better (or worse) than `against`.
      against: the setting to compare with.
    """

    words: str
    block: str
    setting: str
    against: str


@dataclasses.dataclass(frozen=True)
class Study:
    """Blocks that answer one question.

    Attributes:
      question: in one sentence.
      blocks: one table each.
      claims: shown in a table of their own.
    """

    question: str
    blocks: Sequence[Block]
    claims: Sequence[Claim] = ()

    def block(self, name: str) -> Block:
        """The block with that name."""
        return next(b for b in self.blocks if b.name == name)

    def with_pupils(self, setting: str) -> list[str]:
        """The name of a setting, and of all that learn from its networks, in any block."""
        found = [setting]
        for name in found:  # grows meanwhile
            for pupil in (s for block in self.blocks for s in block.settings):
                if pupil.name not in found and name in pupil.teacher_settings:
                    found.append(pupil.name)
        return found


@dataclasses.dataclass(frozen=True)
class Job:
    """One or more seeds of one setting, trained in one program.

    Attributes:
      block: contains the setting.
      setting: to train.
      seeds: consecutive, from the first upwards.
    """

    block: Block
    setting: Setting
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        seeds = ", ".join(map(str, self.seeds))
        return f"{self.block.name}: {self.setting.name}, seed {seeds}"

    def folder(self, root: pathlib.Path) -> pathlib.Path:
        """The folder of the run, below the folder of the study's runs."""
        first, last = self.seeds[0], self.seeds[-1]
        seeds = f"seed{first}" if first == last else f"seeds{first}-{last}"
        return root / _slug(self.block.name) / _slug(self.setting.name) / seeds

    def needs(self) -> list["Job"]:
        """The runs that this one's teachers come from."""
        block = self.block.teachers or self.block
        names = self.setting.teacher_settings
        return [Job(block, block.setting(name), self.seeds) for name in names]

    def may_teach(self, study: Study) -> bool:
        """Whether another run of the study may take a teacher from this one."""
        return any(
            self.setting.name in setting.teacher_settings
            for block in study.blocks
            if (block.teachers or block) == self.block
            for setting in block.settings
        )

    def config(self, root: pathlib.Path, data_dir: str | None = None) -> ml_collections.ConfigDict:
        """The settings of the run.

        Args:
          root: folder of the study's runs.
          data_dir: folder of TFDS data sets, for studies that read one.

        Raises:
          SettingError: if a change names no field, or seeds in one program have different recipes
            or do not follow each other.
        """
        own = settings(self.block, self.setting, self.seeds[0])
        if self.seeds != tuple(range(self.seeds[0], self.seeds[0] + len(self.seeds))):
            remedy = f"{self.seeds} do not follow each other; train one at once"
            raise SettingError("--seeds-at-once", len(self.seeds), remedy)
        for seed in self.seeds[1:]:
            if as_json(settings(self.block, self.setting, seed)) != as_json(own):
                remedy = f"the recipe of {self.block.name!r} depends on the seed; train one at once"
                raise SettingError("--seeds-at-once", len(self.seeds), remedy)
        own.seed, own.seeds = self.seeds[0], len(self.seeds)
        if self.setting.teachers:
            folders = {job.setting.name: job.folder(root) for job in self.needs()}
            parted = [teacher.partition("@") for teacher in self.setting.teachers]
            own.teachers = tuple(f"{folders[name]}{at}{node}" for name, at, node in parted)
        own.trust = True  # the folders of teachers are this study's own
        if data_dir is not None and own.data.name != "arrays":
            own.data.data_dir = data_dir
        return own


def settings(block: Block, setting: Setting, seed: int) -> ml_collections.ConfigDict:
    """The full settings of a setting, without its seed and the folders of its teachers."""
    config = copy.deepcopy(read_config(setting.config))
    block.recipe(config, seed)
    for path, value in setting.changes.items():
        *parents, field = path.split(".")
        where = config
        for parent in parents:
            if parent not in where:
                raise SettingError(f"{setting.name}: {path}", value, one_of(parent, list(where)))
            where = where[parent]
        if field not in where and where is not config.method:
            raise SettingError(f"{setting.name}: {path}", value, one_of(field, list(where)))
        with where.unlocked():
            where[field] = value
    config.seed = 0
    if setting.teachers:
        config.teachers = tuple(setting.teachers)
    return config


def stated(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The fields that differ from the defaults, {"batch_size": 64, ...}, except for data folders.

    Fields that a later release adds do not appear, so results stay valid. Options of methods,
    optimizers and schedules appear if they differ from the defaults of the chosen one.
    """
    base = base_config()
    first = _names(base)
    base.method = {"name": config.method.name}
    for update, own in config.optimizers.items():
        base.optimizers[update] = {"name": own.name, "schedule": {"name": own.schedule.name}}
    defaults, values = (_flat(as_json(c)) for c in (base, config))
    differ = {path: value for path, value in values.items() if defaults.get(path, ...) != value}
    differ |= {path: name for path, name in _names(config).items() if first[path] != name}
    differ["method.name"] = config.method.name
    differ.pop("data.data_dir", None)
    return differ


def _names(config: ml_collections.ConfigDict) -> dict[str, str]:
    """The names of the chosen optimizers and schedules."""
    chosen = {}
    for update, own in config.optimizers.items():
        chosen[f"optimizers.{update}.name"] = own.name
        chosen[f"optimizers.{update}.schedule.name"] = own.schedule.name
    return chosen


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def jobs(study: Study, at_once: int) -> list[Job]:
    """All runs of a study, seed by seed, so that every setting has some seeds before any has all.

    Args:
      study: to list.
      at_once: number of seeds in one program.
    """
    found = []
    for block in study.blocks:
        for n in range(0, len(block.seeds), at_once):
            seeds = tuple(block.seeds[n : n + at_once])
            found += [(n, Job(block, setting, seeds)) for setting in block.settings]
    return [job for _, job in sorted(found, key=lambda each: each[0])]


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "_" for c in name)


_FOLDER = pathlib.Path(__file__).parents[1] / "studies"
NAMES = tuple(sorted(f.stem for f in _FOLDER.glob("*.py") if "\nSTUDY = Study(" in f.read_text()))
"""Of all studies."""


def load(name: str) -> Study:
    """The study with that name.

    Raises:
      SettingError: if there is none.
    """
    if name not in NAMES:
        raise SettingError("NAME", name, one_of(name, NAMES))
    study: Study = importlib.import_module(f"experiments.studies.{name}").STUDY
    return study
