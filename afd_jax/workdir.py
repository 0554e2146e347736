"""The folder of a run: its files, and the promise that they belong to one run and one program."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import ml_collections
from jax.experimental import multihost_utils

from afd_jax.config import base_config
from afd_jax.errors import SettingError, first_line
from afd_jax.overrides import fill_options
from afd_jax.stages import names_network

if TYPE_CHECKING:  # it needs folders of other runs, for teachers
    from afd_jax.assemble import Run

try:
    import fcntl
except ImportError:  # not on this system; then two programs can use one folder
    fcntl = None  # type: ignore[assignment]

# What may differ between two commands that continue one run: what changes its numbers by rounding
# at most (and by dropout, which each device draws for itself).
_MAY_CHANGE = (
    "config.parallel",
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

    @contextlib.contextmanager
    def claimed(self, config: ml_collections.ConfigDict, run: "Run") -> Iterator[None]:
        """Makes the folder this run's own, or checks that it is; no other program may enter.

        Raises:
          SettingError: if the folder cannot be written, holds a run of other settings or data, or
            is in use.
        """
        with contextlib.ExitStack() as stack:
            problem = None
            try:
                self._claim(config, run, stack)
            except SettingError as error:
                problem = error
            except OSError as error:
                remedy = f"cannot be written ({first_line(error)})"
                problem = SettingError("--workdir", str(self.path), remedy)
            if jax.process_count() > 1:  # all go on, or none
                refused = multihost_utils.process_allgather(problem is not None).any()
                if refused and problem is None:
                    remedy = "another process of this run could not use it; see its message"
                    problem = SettingError("--workdir", str(self.path), remedy)
            if problem:
                raise problem
            yield

    def _claim(
        self, config: ml_collections.ConfigDict, run: "Run", stack: contextlib.ExitStack
    ) -> None:
        settings, facts = json.loads(fill_options(config).to_json_best_effort()), _facts(run)
        writes = jax.process_index() == 0
        self.path.mkdir(parents=True, exist_ok=True)
        if writes:
            self._lock(stack)
        if self.config.is_file():
            require_same(settings, self.settings(), self.path)
        elif writes:
            write_json(self.config, settings)
        if self.data.is_file():
            self._compare_data(facts, config)
        elif writes:
            write_json(self.data, facts)

    def _lock(self, stack: contextlib.ExitStack) -> None:
        """Locks the folder itself, which no writing replaces, until the stack is left."""
        if fcntl is None:
            return
        folder = os.open(self.path, os.O_RDONLY)
        stack.callback(os.close, folder)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "another program trains in this folder; wait for it, or name another one"
            raise SettingError("--workdir", str(self.path), remedy) from error
        except OSError:  # a file system without locks
            pass

    def require_settings(self, config: ml_collections.ConfigDict) -> None:
        """Raises SettingError unless the folder's run has the numbers of these settings."""
        given = json.loads(fill_options(config).to_json_best_effort())
        require_same(given, self.settings(), self.path)

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

    def claim_teachers(self, run: "Run") -> None:
        """Notes the teachers' fingerprints, or checks that they are those noted.

        Raises:
          SettingError: if the run began with other teachers.
        """
        if not run.teachers or any(t.variables is None for t in run.teachers):
            return  # a finished run whose teachers' folders are gone has none to compare
        own = [
            {"name": t.name, "method": t.method, "folder": t.folder, "sha256": t.digest}
            for t in run.teachers
        ]
        if not self.teachers.is_file():
            if jax.process_index() == 0:
                write_json(self.teachers, {"teachers": own})
            return
        noted = self.noted_teachers()
        if [t["sha256"] for t in noted] != [t["sha256"] for t in own]:
            remedy = f"holds other networks than the run in {self.path} began with, those of "
            remedy += f"{[t['folder'] for t in noted]}; use those, or another --workdir"
            raise SettingError("config.teachers", [t["folder"] for t in own], remedy)

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

    def _compare_data(self, facts: Mapping[str, Any], config: ml_collections.ConfigDict) -> None:
        saved = read_json(self.data)
        for name, value in facts.items():
            if saved.get(name) != value:
                remedy = f"holds other data than the run in {self.path} began with ({name} was "
                remedy += f"{saved.get(name)!r}, is {value!r}); use that data, or another --workdir"
                raise SettingError("config.data.data_dir", config.data.data_dir, remedy)


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


def _facts(run: "Run") -> dict[str, Any]:
    """Of the data, as JSON: what using a trained network needs, and a fingerprint."""
    parts = (run.splits.train, run.splits.heldout, run.splits.test)
    digest = hashlib.sha256("".join(part.digest for part in parts).encode())
    return {
        "image_shape": list(run.splits.image_shape),
        "classes": run.splits.classes,
        "mean": list(run.recipe.mean),
        "std": list(run.recipe.std),
        "train": len(run.splits.train),
        "heldout": len(run.splits.heldout),
        "test": len(run.splits.test),
        "sha256": digest.hexdigest(),
    }


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
    return json.loads(fill_options(filled).to_json_best_effort())


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
