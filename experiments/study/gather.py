"""Compares finished runs that belong to no study, as a study does.

  python -m experiments.study.gather experiments/results/NAME "DML=RUN,RUN,RUN" "AFD=RUN,RUN,RUN"

writes NAME.json and, for two or more groups, NAME.svg, and prints the table. All other groups are
compared with the first, seed by seed.
"""

import pathlib
import sys
from typing import Any

import ml_collections

from afd_jax.errors import SettingError
from afd_jax.runs.workdir import Workdir, read_json, require_same
from experiments.study import figures, tables
from experiments.study.plan import NAMES, Block, Setting, Study, stated
from experiments.study.records import Records, as_text, records_of


def gather(name: str, groups: dict[str, list[Workdir]]) -> tuple[Block, Records, dict[str, Any]]:
    """A table of groups of runs: the block, its records, and the settings of each group.

    Raises:
      SettingError: if a folder holds no finished run, the runs of a group do not belong together,
        or the groups had different recipes, data or seeds.
    """
    settings = {group: _settings(folders) for group, folders in groups.items()}
    seeds = {group: _seeds(folders) for group, folders in groups.items()}
    first, *_ = groups
    for group in groups:
        ours, theirs = ({**shared_recipe(settings[g]), "seeds": seeds[g]} for g in (group, first))
        for field, value in ours.items():
            if value != theirs[field]:
                remedy = f"differs from {first}'s, {theirs[field]!r}; train all alike"
                raise SettingError(f"{group}: {field}", value, remedy)
    every = [folder for folders in groups.values() for folder in folders]
    data = [read_json(folder.data) if folder.data.is_file() else {} for folder in every]
    for folder, facts in zip(every, data, strict=True):
        if facts != data[0]:
            remedy = f"was trained on other data than {every[0].path}"
            raise SettingError("RUN_DIR", str(folder.path), remedy)
    own = tuple(Setting(group, "") for group in groups)
    block = Block(name, own, lambda config, seed: None, seeds[first], baseline=first)
    records = [
        record
        for setting in own
        for folder in groups[setting.name]
        for record in records_of(folder.path, block, setting)
    ]
    return block, Records(records), {group: stated(config) for group, config in settings.items()}


def _settings(folders: list[Workdir]) -> ml_collections.ConfigDict:
    """The settings that the runs of a group share: all but the seed and the folders of teachers."""
    first, kinds = folders[0], []
    for folder in folders:
        if not folder.summary.is_file():
            raise SettingError("RUN_DIR", str(folder.path), "no finished run (no summary.json)")
        but = ["config.seed", "config.seeds"]
        require_same(folder.settings(), first.settings(), first.path, but=but)
        kinds.append([f"{t['name']} by {t['method']}" for t in folder.noted_teachers()])
        if kinds[-1] != kinds[0]:
            remedy = f"was taught by {kinds[-1]}, {first.path} by {kinds[0]}"
            raise SettingError("RUN_DIR", str(folder.path), remedy)
    config = ml_collections.ConfigDict(first.settings())
    config.seed, config.seeds, config.teachers = 0, 1, kinds[0]
    return config


def _seeds(folders: list[Workdir]) -> list[int]:
    summaries = [read_json(folder.summary) for folder in folders]
    seeds = sorted(seed for s in summaries for seed in s.get("seeds", [s.get("seed")]))
    if len({*seeds}) < len(seeds):
        raise SettingError("RUN_DIR", seeds, "the runs must have different seeds")
    return seeds


def shared_recipe(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The settings that all groups must share; methods and what their losses need may differ."""
    data = {k: v for k, v in config.data.items() if k not in ("data_dir", "download", "workers")}
    own = {field: config[field] for field in ("batch_size", "duration")}
    return {"data": data, **own, "optimizers.logit": config.optimizers.logit.to_dict()}


def main(arguments: list[str]) -> int:
    """Reads the command line."""
    if len(arguments) < 2 or not all("=" in group for group in arguments[1:]):
        print(__doc__)
        return 2
    target = pathlib.Path(arguments[0])
    pairs = [group.split("=", 1) for group in arguments[1:]]
    texts = dict(pairs)
    try:
        for name in texts:
            if sum(name == other for other, _ in pairs) > 1:
                raise SettingError("GROUP", name, "is there twice; name all its runs at once")
        if target.name in NAMES:
            remedy = "is the file of a study; choose another name"
            raise SettingError("NAME", str(target), remedy)
        block, records, settings = gather(
            target.name,
            {group: [Workdir(pathlib.Path(f)) for f in t.split(",")] for group, t in texts.items()},
        )
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    study = Study(f"What do {', '.join(texts)} reach?", (block,))
    target.parent.mkdir(parents=True, exist_ok=True)
    # Not with_suffix: a name may hold a dot.
    text = as_text(study.question, {block.name: settings}, records.records)
    aside = target.with_name(f"{target.name}.tmp")
    aside.write_text(text)
    aside.replace(target.with_name(f"{target.name}.json"))
    figures.differences(study, records, target.with_name(f"{target.name}.svg"))
    print(tables.markdown(block, records))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
