"""Other tools that show metrics: TensorBoard, Weights & Biases.

They get what metrics.jsonl gets. That file stays the truth: a tool that fails is said once and then
left out, and never ends a run.
"""

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
from flax import traverse_util

from afd_jax.data.extra import need
from afd_jax.errors import SettingError, first_line, one_of

Record = Mapping[str, Any]

_logger = logging.getLogger("afd_jax")


class Writer(Protocol):
    """One tool's view of one seed."""

    new: bool
    """Whether it holds nothing yet."""

    def write(self, record: Record) -> None:
        """Takes a record of metrics.jsonl."""

    def finish(self, summary: Record) -> None:
        """Takes the summary, at the end."""

    def close(self) -> None:
        """Leaves everything on disk or sent, whether the run is finished or not."""


@dataclasses.dataclass(frozen=True)
class Session:
    """What a writer is opened for.

    Attributes:
      folder: of the run.
      name: of the run.
      seed: of the records that it gets.
      alone: whether that is the run's only seed.
      settings: as config.json has them.
      step: the step that training goes on from.
    """

    folder: pathlib.Path
    name: str
    seed: int
    alone: bool
    settings: Mapping[str, Any]
    step: int


class Writers:
    """The writers of a run, on process 0 only; nothing is opened before `begin`.

    Args:
      names: of them.
      folder: of the run.
      name: of the run.
      settings: as config.json has them.
      seeds: of the run.
    """

    def __init__(
        self,
        names: Sequence[str],
        folder: pathlib.Path,
        name: str,
        settings: Mapping[str, Any],
        seeds: Sequence[int],
    ):
        self._names = tuple(names) if jax.process_index() == 0 else ()
        self._folder, self._name = folder, name
        self._settings, self._seeds = settings, seeds
        self._open: dict[str, dict[int, Writer]] = {}

    def __enter__(self) -> "Writers":
        return self

    def __exit__(self, *_: object) -> None:
        self._tell(lambda writer: writer.close())
        self._open = {}

    def begin(self, records: Sequence[Record], step: int) -> None:
        """Opens the writers; one that holds nothing yet gets the records so far."""
        for name in self._names:
            self._open[name] = {}
            with self._kept_apart(name):
                for seed in self._seeds:
                    alone = len(self._seeds) == 1
                    session = Session(self._folder, self._name, seed, alone, self._settings, step)
                    self._open[name][seed] = writer = _WRITERS[name](session)
                    for record in records if writer.new else ():
                        if record["seed"] == seed:
                            writer.write(record)

    def write(self, record: Record) -> None:
        """Hands a record to the writers of its seed."""
        self._tell(lambda writer: writer.write(record), record["seed"])

    def finish(self, summary: Record) -> None:
        """Hands over the summary."""
        self._tell(lambda writer: writer.finish(summary))

    def _tell(self, action: Callable[[Writer], None], seed: int | None = None) -> None:
        for name, own in list(self._open.items()):
            with self._kept_apart(name):
                for of, writer in own.items():
                    if seed in (None, of):
                        action(writer)

    @contextlib.contextmanager
    def _kept_apart(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each tool has its own
            words = "the run goes on without it, and metrics.jsonl has everything"
            _logger.warning("writer %s failed (%s); %s", name, first_line(error), words)
            for writer in self._open.pop(name, {}).values():
                with contextlib.suppress(Exception):
                    writer.close()


def require_writers(names: Any) -> None:
    """Raises SettingError for an unknown writer, or one whose package is not installed."""
    if not isinstance(names, list | tuple):
        raise SettingError("writers", names, f"must be a list, such as {(*NAMES[:1],)!r}")
    for name in names:
        if name not in _WRITERS:
            raise SettingError("writers", name, one_of(name, NAMES))
        need(_PACKAGES[name], "writers", name, extra=name)


def numbers(record: Record) -> dict[str, float]:
    """Every number of a record by its key; those of an evaluation begin with its kind.

    >>> numbers({"kind": "train", "step": 2, "seed": 0, "a/loss/kl": 0.5})
    {'a/loss/kl': 0.5}
    >>> numbers({"kind": "test", "step": 2, "seed": 0, "accuracy": {"a": 0.5}})
    {'test/accuracy/a': 0.5}
    """
    rest = {k: v for k, v in record.items() if k not in ("kind", "step", "seed")}
    flat = traverse_util.flatten_dict(rest, sep="/")
    found = {k: v for k, v in flat.items() if isinstance(v, int | float)}
    kind = record["kind"]
    return found if kind == "train" else {f"{kind}/{k}": v for k, v in found.items()}


class _TensorBoard:
    """Event files in WORKDIR/tensorboard/seed_N; `tensorboard --logdir WORKDIR` shows them."""

    def __init__(self, session: Session):
        import tensorboardX

        folder = session.folder / "tensorboard" / f"seed_{session.seed}"
        self.new = not any(folder.glob("events.*"))
        # What an earlier session wrote beyond this step is hidden: it is going to come again.
        purge = None if self.new else session.step + 1
        self._writer = tensorboardX.SummaryWriter(str(folder), purge_step=purge)
        if self.new:
            self._text("settings", session.settings, 0)
            flat = traverse_util.flatten_dict(session.settings, sep=".")
            plain = {k: v if isinstance(v, int | float | str) else str(v) for k, v in flat.items()}
            begin = tensorboardX.summary.hparams(plain, {"test/ensemble_accuracy": 0.0})[:2]
            for each in begin:
                self._writer.file_writer.add_summary(each)
        self._writer.flush()

    def _text(self, name: str, content: Record, step: int) -> None:
        lines = json.dumps(content, indent=2).splitlines()
        self._writer.add_text(name, "\n".join("    " + line for line in lines), step)

    def write(self, record: Record) -> None:
        for name, value in numbers(record).items():
            self._writer.add_scalar(name, value, record["step"])
        self._writer.flush()  # so that a crash loses nothing that a checkpoint is ahead of

    def finish(self, summary: Record) -> None:
        self._text("summary", summary, summary["steps"])

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """A run of Weights & Biases for each seed, with its files in WORKDIR/wandb.

    Its mode comes from WANDB_MODE; without that it is online only if somebody is logged in.
    """

    def __init__(self, session: Session):
        import wandb

        folder = session.folder / "wandb"
        folder.mkdir(exist_ok=True)
        # Its name is kept, so that the same command continues it.
        note = folder / f"seed_{session.seed}.id"
        self.new = not note.is_file()
        run_id = secrets.token_hex(8) if self.new else note.read_text().strip()
        mode: Any = os.environ.get("WANDB_MODE")
        if mode is None:
            mode = "online" if wandb.login(prompt=False) else "offline"
        name = session.name
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "afd_jax"),
            name=name if session.alone else f"{name}, seed {session.seed}",
            group=None if session.alone else name,
            id=run_id,
            resume="allow",
            reinit="create_new",  # one for each seed, side by side
            dir=str(session.folder),
            config=dict(session.settings),
            mode=mode,
            settings=wandb.Settings(console="off"),
        )
        note.write_text(run_id)
        self._finished = False

    def write(self, record: Record) -> None:
        # A step that it has seen before it leaves out: the same numbers came then.
        self._run.log(numbers(record), step=record["step"])

    def finish(self, summary: Record) -> None:
        self._run.summary.update({"summary": dict(summary)})
        self._finished = True

    def close(self) -> None:
        self._run.finish(exit_code=0 if self._finished else 1)


_WRITERS: dict[str, Callable[[Session], Writer]] = {"tensorboard": _TensorBoard, "wandb": _WandB}
_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
NAMES = tuple(_WRITERS)
