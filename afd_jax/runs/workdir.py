"""The folder of a run: its files, and what they hold."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections

from afd_jax.errors import SettingError, first_line
from afd_jax.runs.overrides import as_json
from afd_jax.runs.prerequisites import names_network
from afd_jax.runs.settings import base_config

# What may differ between two commands that continue one run: what changes its numbers by rounding
# at most (and by dropout, which each device draws for itself).
_MAY_CHANGE = (
    "config.parallel",
    "config.profile",
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

    def generations(self) -> list[dict[str, Any]]:
        """The networks of the generations that were trained in folders below, in order."""
        count = len(list(self.path.glob("generation_*/summary.json")))
        return [
            {"generation": g, **network}
            for g in range(1, count + 1)
            for network in read_json(self.path / f"generation_{g}" / "summary.json")["networks"]
        ]

    def settings(self) -> dict[str, Any]:
        """What config.json holds, with the defaults of fields that came later.

        Raises:
          SettingError: if the file is damaged.
        """
        return _with_defaults(ml_collections.ConfigDict(read_json(self.config)))

    def noted_teachers(self) -> list[dict[str, Any]]:
        """What teachers.json holds; nothing if there are none.

        Raises:
          SettingError: if the file is damaged.
        """
        if not self.teachers.is_file():
            return []
        noted = read_json(self.teachers).get("teachers")
        keys = {"name", "method", "folder", "sha256"}
        if not isinstance(noted, list) or not all(
            isinstance(t, dict) and keys <= {*t} for t in noted
        ):
            remedy = "is damaged; put a copy back, or name another --workdir"
            raise SettingError("--workdir", str(self.teachers), remedy)
        return noted


def read_json(file: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      SettingError: if the file does not hold one.
    """
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        remedy = f"is damaged ({first_line(error)}); put a copy back, or name another --workdir"
        raise SettingError("--workdir", str(file), remedy) from error
    if not isinstance(content, dict):
        remedy = "is damaged (no JSON object); put a copy back, or name another --workdir"
        raise SettingError("--workdir", str(file), remedy)
    return content


def write_json(file: pathlib.Path, content: Any) -> None:
    """Writes aside and renames, so that nobody reads half a file."""
    aside = file.with_suffix(".tmp")
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
    return as_json(filled)


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
    if field == "config.teachers":  # folders may move: what is in them is compared elsewhere
        new, old = ([e if names_network(e) else "folder" for e in own] for own in (new, old))
    if isinstance(new, dict) and isinstance(old, dict):
        for key in {**old, **new}:
            _compare(new.get(key), old.get(key), folder, f"{field}.{key}", free)
    elif new != old:
        remedy = f"the run in {folder} has {old!r}; use that value, or another --workdir"
        raise SettingError(field, new, remedy)
