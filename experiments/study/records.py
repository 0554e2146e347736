"""What we keep of a study's runs: one JSON file, small enough to commit."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from afd_jax.engine.build import numbered
from afd_jax.errors import SettingError, one_of
from afd_jax.runs.metrics import read_metrics
from afd_jax.runs.workdir import Workdir, read_json
from experiments.study.locks import held
from experiments.study.plan import Block, Setting, Study, settings, stated

Record = dict[str, Any]
"""One seed of one setting: "block", "setting", "seed", "nodes", "curve", and what it ran on."""


def records_of(folder: pathlib.Path, block: Block, setting: Setting) -> list[Record]:
    """The records of a finished run, one per seed; accuracies are fractions, from the last epoch.

    "train_accuracy" is that of the last line of the log, on augmented images while training.
    Times are left out: other programs may share the machine, so they would say little.
    """
    work = Workdir(folder)
    summary = read_json(work.summary)
    metrics = list(read_metrics(work.metrics))
    given = work.settings()["networks"]
    architectures = dict(zip(numbered(given), given, strict=True))
    common = {key: summary[key] for key in ("device", "jax_version", "versions", "commit")}
    found = []
    for run in summary.get("runs", [summary]):
        tests = [r for r in metrics if r["kind"] == "test" and r["seed"] == run["seed"]]
        entropies = {name: v for r in tests for name, v in r["cross_entropy"].items()}
        training = [r for r in metrics if r["kind"] == "train" and r["seed"] == run["seed"]]
        nodes = {
            node["name"]: {
                "network": architectures.get(node["network"], node["network"]),
                **{key: node[key] for key in ("role", "parameters")},
                "accuracy": _rounded(node["test_accuracy"]),
                "cross_entropy": _rounded(entropies[node["name"]]),
                **_seen(training, node["name"]),
            }
            for part in ("networks", "twins", "others")
            for node in run[part]
        }
        ensembles = {
            name.replace("_test", ""): value
            for name, value in run.items()
            if name.endswith("ensemble_test_accuracy")
        }
        kept = ("epoch", "accuracy", "ensemble_accuracy", "similarity")
        found.append(
            {
                "block": block.name,
                "setting": setting.name,
                "seed": run["seed"],
                "nodes": nodes,
                **{name: _rounded(v) for name, v in ensembles.items()},
                "curve": [{k: _rounded(r[k], 4) for k in kept if k in r} for r in tests],
                **common,
            }
        )
    return found


def _seen(log: list[Record], node: str) -> dict[str, float]:
    """The accuracy of a node in the last line of a log, which a short run may not have."""
    accuracy = log[-1].get(f"{node}/accuracy") if log else None
    return {} if accuracy is None else {"train_accuracy": _rounded(accuracy)}


def _rounded(value: Any, digits: int = 6) -> Any:
    """Rounds to more digits than these numbers are worth."""
    if isinstance(value, dict):
        return {key: _rounded(v, digits) for key, v in value.items()}
    return round(value, digits) if isinstance(value, float) else value


class Records:
    """Records that can be looked up.

    Args:
      records: of one or more seeds and settings.

    Attributes:
      records: all of them.
    """

    def __init__(self, records: list[Record]):
        self.records = records

    def of(self, block: str, setting: str) -> list[Record]:
        """The records of a setting, by seed."""
        return [r for r in self.records if (r["block"], r["setting"]) == (block, setting)]

    def has(self, block: str, setting: str, seed: int) -> bool:
        """Whether there is a record of this seed of a setting."""
        return any(r["seed"] == seed for r in self.of(block, setting))


class Results(Records):
    """The JSON file of a study; its records are in the order of the study.

    Args:
      file: of the results; need not exist.
      study: that the results belong to.
    """

    def __init__(self, file: pathlib.Path, study: Study):
        super().__init__([])
        self._file, self._study = file, study
        self.refresh()

    def refresh(self) -> None:
        """Reads the file again: another share may have written meanwhile."""
        content: dict[str, Any] = {"settings": {}, "records": []}
        if self._file.is_file():
            try:
                content = read_json(self._file)
            except SettingError as error:
                remedy = "is damaged; take it from the last commit again"
                raise SettingError("--results", str(self._file), remedy) from error
        self.records, self._trained_with = content["records"], content["settings"]
        self._changed = self._first_change()

    def _first_change(self) -> SettingError | None:
        for block, setting in _settings(self._study):
            if not super().of(block.name, setting.name):
                continue
            then, now = self._trained_with[block.name][setting.name], _stated(block, setting)
            for path in sorted({*then, *now}):
                if then.get(path) != now.get(path):
                    remedy = f"{block.name}: {setting.name!r} was trained with {then.get(path)!r} "
                    remedy += "(None: the default); --forget it, or set the study as it was"
                    return SettingError(f"{self._file}: {path}", now.get(path), remedy)
        return None

    def of(self, block: str, setting: str) -> list[Record]:
        """The records of a setting, by seed.

        Raises:
          SettingError: if any records were trained with other settings than the study has now.
        """
        if self._changed:
            raise self._changed
        return super().of(block, setting)

    def add(self, records: list[Record]) -> None:
        """Adds new records and writes the file; raises the same errors as `of`."""
        with self._turn():
            self.refresh()
            if self._changed:
                raise self._changed
            new = {(r["block"], r["setting"], r["seed"]): r for r in [*self.records, *records]}
            self._write(list(new.values()))

    def forget(self, setting: str) -> dict[str, int]:
        """Removes the records of a setting from all blocks, and of those that learn from it.

        Args:
          setting: to forget.

        Returns:
          How many records were removed, by setting.

        Raises:
          SettingError: if neither the study nor its results have such a setting.
        """
        with self._turn():
            self.refresh()
            known = {s.name for _, s in _settings(self._study)} | {
                r["setting"] for r in self.records
            }
            if setting not in known:
                raise SettingError("--forget", setting, one_of(setting, known))
            names = self._study.with_pupils(setting)
            gone = [r["setting"] for r in self.records if r["setting"] in names]
            if gone:
                self._write([r for r in self.records if r["setting"] not in names])
        return {name: gone.count(name) for name in names}

    def _turn(self) -> contextlib.AbstractContextManager[None]:
        return held(self._file.parent / ".lock")

    def _write(self, records: list[Record]) -> None:
        places = {(b.name, s.name): n for n, (b, s) in enumerate(_settings(self._study))}
        # Those of settings that the study has no longer, or not in this version of it, come last.
        ours = [r for r in records if (r["block"], r["setting"]) in places]
        ours.sort(key=lambda r: (places[r["block"], r["setting"]], r["seed"]))
        records = ours + [r for r in records if (r["block"], r["setting"]) not in places]
        now = {(b.name, s.name): (b, s) for b, s in _settings(self._study)}
        stated_by_block: dict[str, dict[str, Any]] = {b.name: {} for b in self._study.blocks}
        for place in dict.fromkeys((r["block"], r["setting"]) for r in records):
            # Those that records were trained with, even where the study has others now.
            then = self._trained_with.get(place[0], {}).get(place[1])
            own = _stated(*now[place]) if then is None else then
            stated_by_block.setdefault(place[0], {})[place[1]] = own
        aside = self._file.with_suffix(".tmp")
        aside.write_text(as_text(self._study.question, stated_by_block, records))
        os.replace(aside, self._file)
        self.refresh()


def as_text(
    question: str, stated_by_block: dict[str, dict[str, Any]], records: list[Record]
) -> str:
    """JSON with one line per setting and per record, so that a diff shows what is new."""
    text = f'{{\n "question": {json.dumps(question)},\n "settings": {{\n'
    text += ",\n".join(
        f"  {json.dumps(name)}: {{\n"
        + ",\n".join(f"   {json.dumps(own)}: {json.dumps(v)}" for own, v in each.items())
        + "\n  }"
        for name, each in stated_by_block.items()
    )
    lines = ",\n".join("  " + json.dumps(r) for r in records)
    return text + f'\n }},\n "records": [\n{lines}\n ]\n}}\n'


def _settings(study: Study) -> Iterator[tuple[Block, Setting]]:
    return ((block, setting) for block in study.blocks for setting in block.settings)


def _stated(block: Block, setting: Setting) -> dict[str, Any]:
    return json.loads(json.dumps(stated(settings(block, setting, 0))))
