"""What is kept of a study's runs: one JSON file, small enough to commit."""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from afd_jax.errors import SettingError
from afd_jax.runs.metrics import read_metrics
from afd_jax.runs.workdir import Workdir, read_json
from experiments.study.plan import Block, Setting, Study, settings, stated

Record = dict[str, Any]
"""One seed of one setting: "block", "setting", "seed", "nodes", "curve", and what it ran on."""


def records_of(folder: pathlib.Path, block: Block, setting: Setting) -> list[Record]:
    """The records of a finished run, one per seed; accuracies are fractions, of the last epoch.

    Times are left out: a study shares its machine, so they would say little.
    """
    work = Workdir(folder)
    summary = read_json(work.summary)
    metrics = list(read_metrics(work.metrics))
    common = {key: summary[key] for key in ("device", "jax_version", "versions", "commit")}
    found = []
    for run in summary.get("runs", [summary]):
        tests = [r for r in metrics if r["kind"] == "test" and r["seed"] == run["seed"]]
        entropies = {name: v for r in tests for name, v in r["cross_entropy"].items()}
        nodes = {
            node["name"]: {
                **{key: node[key] for key in ("network", "role", "parameters")},
                "accuracy": _rounded(node["test_accuracy"]),
                "cross_entropy": _rounded(entropies[node["name"]]),
            }
            for part in ("networks", "twins", "others")
            for node in run[part]
        }
        kept = ("epoch", "accuracy", "ensemble_accuracy", "similarity")
        found.append(
            {
                "block": block.name,
                "setting": setting.name,
                "seed": run["seed"],
                "nodes": nodes,
                "ensemble_accuracy": _rounded(run["ensemble_test_accuracy"]),
                "curve": [{k: _rounded(r[k], 4) for k in kept if k in r} for r in tests],
                **common,
            }
        )
    return found


def _rounded(value: Any, digits: int = 6) -> Any:
    """To more digits than these numbers are worth."""
    if isinstance(value, dict):
        return {key: _rounded(v, digits) for key, v in value.items()}
    return round(value, digits) if isinstance(value, float) else value


class Results:
    """The JSON file of a study.

    Args:
      file: of the results; need not be there.
      study: whose.

    Attributes:
      records: all that are there, in the order of the study.

    Raises:
      SettingError: if the records of a setting were trained with other settings than it has now.
    """

    def __init__(self, file: pathlib.Path, study: Study):
        self._file, self._study = file, study
        self.records: list[Record] = []
        self._refresh()

    def _refresh(self) -> None:
        if not self._file.is_file():
            return
        content = read_json(self._file)
        self.records = content["records"]
        for block, setting in _settings(self._study):
            if not self.of(block.name, setting.name):
                continue
            then, now = content["settings"][block.name][setting.name], _stated(block, setting)
            for path in sorted({*then, *now}):
                if then.get(path) != now.get(path):
                    remedy = f"{block.name}: {setting.name!r} was trained with {then.get(path)!r} "
                    remedy += "(None: the default); --forget it, or set the study as it was"
                    raise SettingError(f"{self._file}: {path}", now.get(path), remedy)

    def of(self, block: str, setting: str) -> list[Record]:
        """The records of a setting, by seed."""
        return [r for r in self.records if (r["block"], r["setting"]) == (block, setting)]

    def has(self, block: str, setting: str, seed: int) -> bool:
        """Whether this seed of a setting is there."""
        return any(r["seed"] == seed for r in self.of(block, setting))

    def add(self, records: list[Record]) -> None:
        """Takes new records, and writes the file."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with _held(self._file.parent):
            self._refresh()  # another share may have written meanwhile
            new = {(r["block"], r["setting"], r["seed"]): r for r in [*self.records, *records]}
            self._write(list(new.values()))

    def forget(self, setting: str) -> int:
        """Drops the records of a setting in all blocks; returns their number."""
        content = read_json(self._file)["records"] if self._file.is_file() else []
        kept = [r for r in content if r["setting"] != setting]
        self._write(kept)
        return len(content) - len(kept)

    def _write(self, records: list[Record]) -> None:
        places = {(b.name, s.name): n for n, (b, s) in enumerate(_settings(self._study))}
        known = [r for r in records if (r["block"], r["setting"]) in places]
        known.sort(key=lambda r: (places[r["block"], r["setting"]], r["seed"]))
        self.records = known
        stated_by_block = {
            block.name: {
                setting.name: _stated(block, setting)
                for setting in block.settings
                if self.of(block.name, setting.name)
            }
            for block in self._study.blocks
        }
        text = f'{{\n "question": {json.dumps(self._study.question)},\n "settings": {{\n'
        text += ",\n".join(
            f"  {json.dumps(name)}: {{\n"
            + ",\n".join(f"   {json.dumps(own)}: {json.dumps(v)}" for own, v in each.items())
            + "\n  }"
            for name, each in stated_by_block.items()
        )
        lines = ",\n".join("  " + json.dumps(r) for r in known)
        text += f'\n }},\n "records": [\n{lines}\n ]\n}}\n'
        aside = self._file.with_suffix(".tmp")
        aside.write_text(text)
        os.replace(aside, self._file)


@contextlib.contextmanager
def _held(folder: pathlib.Path) -> Iterator[None]:
    """Waits until nobody else writes there."""
    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _settings(study: Study) -> Iterator[tuple[Block, Setting]]:
    return ((block, setting) for block in study.blocks for setting in block.settings)


def _stated(block: Block, setting: Setting) -> dict[str, Any]:
    return json.loads(json.dumps(stated(settings(block, setting, 0))))
