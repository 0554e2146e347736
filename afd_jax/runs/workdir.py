"""The folder of a run: its files, and what they hold."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections

from afd_jax.errors import SettingError, first_line, naming, shortened
from afd_jax.runs.overrides import as_json
from afd_jax.runs.prerequisites import in_file, names_network
from afd_jax.runs.settings import base_config

# What every summary has beside its networks.
_ALWAYS_THERE = (
    *("epochs", "compile_seconds", "train_seconds", "images_per_second"),
    *("jax_version", "device", "commit"),
)

# What may differ between two commands that continue one run: what changes its numbers by rounding
# at most (by dropout, too, which each device draws for itself, and CKA, an estimate from batches).
_MAY_CHANGE = (
    "config.parallel",
    "config.profile",
    "config.trust",
    "config.writers",
    "config.log_every",
    "config.checkpoint_every",
    "config.eval_batch_size",
    "config.data.data_dir",
    "config.data.download",
    "config.data.workers",
)


@dataclasses.dataclass(frozen=True)
class Workdir:
    """The folder of one run.

    Attributes:
      path: the folder.
    """

    path: pathlib.Path

    @property
    def config(self) -> pathlib.Path:
        """The settings."""
        return self.path / "config.json"

    @property
    def data(self) -> pathlib.Path:
        """What there is to know about the data: shape, classes, normalisation."""
        return self.path / "data.json"

    @property
    def graph(self) -> pathlib.Path:
        """Nodes with roles and parameter counts, and edges."""
        return self.path / "graph.json"

    @property
    def teachers(self) -> pathlib.Path:
        """Where the frozen teachers came from, and fingerprints of their variables."""
        return self.path / "teachers.json"

    @property
    def init_from(self) -> pathlib.Path:
        """What networks started from, likewise."""
        return self.path / "init_from.json"

    @property
    def metrics(self) -> pathlib.Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> pathlib.Path:
        """Orbax's folder."""
        return self.path / "checkpoints"

    @property
    def summary(self) -> pathlib.Path:
        """Written when the run is finished."""
        return self.path / "summary.json"

    @property
    def curves(self) -> pathlib.Path:
        """The picture."""
        return self.path / "curves.png"

    def require_settings(self, config: ml_collections.ConfigDict) -> None:
        """Raises SettingError unless the folder's run has the numbers of these settings."""
        require_same(as_json(config), self.settings(), self.path)

    def require_own(self, settings: dict[str, Any]) -> None:
        """Raises SettingError unless settings that a checkpoint holds are those of this run."""
        noted = _with_defaults(ml_collections.ConfigDict(settings))
        require_same(self.settings(), noted, self.path)

    def generations(self) -> list[dict[str, Any]]:
        """The networks of the generations that were trained in folders below, in order."""
        count = len(list(self.path.glob("generation_*/summary.json")))
        return [
            {"generation": g, **network}
            for g in range(1, count + 1)
            for network in Workdir(self.path / f"generation_{g}").read_summary()["networks"]
        ]

    def settings(self) -> dict[str, Any]:
        """What config.json holds, with the defaults of fields that came later.

        Raises:
          SettingError: if the file is damaged.
        """
        content = read_json(self.config)
        for field, kind in _KINDS.items():
            if not isinstance(content.get(field, kind()), kind):
                raise _damaged(self.config, f"{field} is {shortened(repr(content[field]))}")
        _require_fields(self.config, content, {"method", "networks"})
        return _with_defaults(ml_collections.ConfigDict(content))

    def read_summary(self) -> dict[str, Any]:
        """What summary.json holds.

        Raises:
          SettingError: if the file is damaged.
        """
        return _read_with(self.summary, {"networks", "steps", "differences", *_ALWAYS_THERE})

    def read_graph(self) -> dict[str, Any]:
        """What graph.json holds, likewise."""
        return _read_with(self.graph, {"nodes", "edges"})

    def read_data(self) -> dict[str, Any]:
        """What data.json holds, likewise."""
        return _read_with(self.data, {"image_shape", "classes", "mean", "std", "train", "sha256"})

    def noted_teachers(self) -> list[dict[str, Any]]:
        """What teachers.json holds; nothing if there are none.

        Raises:
          SettingError: if the file is damaged.
        """
        return _noted(self.teachers, {"name", "method", "folder", "sha256"})

    def noted_starts(self) -> list[dict[str, Any]]:
        """What init_from.json holds, as `noted_teachers`."""
        return _noted(self.init_from, {"network", "from", "sha256"})


def _noted(file: pathlib.Path, keys: set[str]) -> list[dict[str, Any]]:
    """The list in a JSON file, whose key is the file's name."""
    if not file.is_file():
        return []
    noted = read_json(file).get(file.stem)
    if not isinstance(noted, list) or not all(isinstance(t, dict) and keys <= {*t} for t in noted):
        raise _damaged(file, f"no list of {file.stem}")
    return noted


# What the fields of config.json must be, to be compared.
_KINDS: dict[str, type] = {
    "data": dict,
    "init_from": list,
    "method": dict,
    "networks": list,
    "optimizers": dict,
    "teachers": list,
}


def _damaged(file: pathlib.Path, how: str) -> SettingError:
    remedy = f"is damaged ({how}); put a copy back, or name another --workdir"
    return SettingError("--workdir", str(file), remedy)


def read_json(file: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      SettingError: if the file does not hold one.
    """
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _damaged(file, first_line(error)) from error
    if not isinstance(content, dict):
        raise _damaged(file, "no JSON object")
    return content


def _read_with(file: pathlib.Path, needed: set[str]) -> dict[str, Any]:
    """A JSON object that must have some fields."""
    content = read_json(file)
    _require_fields(file, content, needed)
    return content


def _require_fields(file: pathlib.Path, content: dict[str, Any], needed: set[str]) -> None:
    if missing := needed - {*content}:
        raise _damaged(file, f"{', '.join(sorted(missing))} missing")


def write_json(file: pathlib.Path, content: Any) -> None:
    """Writes aside and renames, so that nobody reads half a file."""
    aside = file.with_suffix(".tmp")
    with naming(aside):
        aside.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    aside.replace(file)


def _with_defaults(saved: ml_collections.ConfigDict) -> dict[str, Any]:
    """An older run's settings, with the defaults of the fields that came later."""

    def fill(known: Any, given: Any) -> Any:
        if not isinstance(known, dict) or not isinstance(given, dict):
            return given
        return given | {k: fill(v, given[k]) if k in given else v for k, v in known.items()}

    # The options of named choices come from those choices, not from base_config's.
    known = json.loads(base_config().to_json_best_effort())
    known["method"] = {}
    known["optimizers"] = {update: {} for update in known["optimizers"]}
    filled = ml_collections.ConfigDict(fill(known, saved.to_dict()))
    return as_json(filled, imports=False)


def require_same(new: Any, old: Any, folder: pathlib.Path, *, but: Sequence[str] = ()) -> None:
    """Raises SettingError where settings differ in what matters to a run's numbers.

    Args:
      new: settings, as `Workdir.settings` gives them.
      old: those of the run in `folder`.
      folder: for the error.
      but: further fields that may differ, "config.seed".
    """
    _compare(new, old, folder, "config", (*_MAY_CHANGE, *but))


def _compare(new: Any, old: Any, folder: pathlib.Path, field: str, free: Sequence[str]) -> None:
    if field in free:
        return
    # Folders and files may move: what is in them is compared elsewhere.
    if field == "config.teachers":
        new, old = ([_lasting(entry) for entry in own] for own in (new, old))
    if field == "config.init_from":
        new, old = (["weights" for _ in own[:1]] for own in (new, old))
    if isinstance(new, dict) and isinstance(old, dict):
        for key in {**old, **new}:
            _compare(new.get(key), old.get(key), folder, f"{field}.{key}", free)
    elif new != old:
        remedy = f"the run in {folder} has {old!r}; use that value, or another --workdir"
        raise SettingError(field, new, remedy)


def _lasting(teacher: str) -> str:
    """An entry of `config.teachers` without the place that it names."""
    if names_network(teacher):
        return teacher
    named = in_file(teacher)
    return f"{named[0]}=file" if named else "folder"
