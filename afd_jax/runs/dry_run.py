"""What a command will do and cost, for a terminal: no data are read, nothing is trained."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
import numpy as np

from afd_jax import speedups
from afd_jax.reports.cost import Costs, costs
from afd_jax.reports.cost import describe as describe_plan
from afd_jax.runs.assemble import Run, assemble
from afd_jax.runs.checkpoint import KEPT
from afd_jax.runs.metrics import evaluation, flatten
from afd_jax.runs.overrides import as_json
from afd_jax.runs.prerequisites import prerequisites
from afd_jax.runs.profile import device_memory
from afd_jax.runs.timed import Timing, time_step
from afd_jax.runs.workdir import Workdir

_NUMBER = 1 / 3  # as long in JSON as most measurements


@dataclasses.dataclass(frozen=True)
class Planned:
    """A run that will happen.

    Attributes:
      name: for people.
      folder: of the run.
      config: its settings; what it learns from need not be there yet.
    """

    name: str
    folder: pathlib.Path
    config: ml_collections.ConfigDict

    @property
    def recipe(self) -> str:
        """The same for runs that differ by their seeds alone, and so cost the same."""
        return json.dumps({**as_json(self.config), "seed": 0}, sort_keys=True)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return Workdir(self.folder).summary.is_file()

    @property
    def steps_done(self) -> int:
        """The step of the newest checkpoint; 0 if there is none."""
        folder = Workdir(self.folder).checkpoints
        steps = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
        return max(steps, default=0)

    @property
    def state(self) -> str:
        """How far it is."""
        if self.finished:
            return "finished"
        return f"step {self.steps_done:,}" if self.steps_done else "to do"


def planned(
    config: ml_collections.ConfigDict, folder: pathlib.Path, name: str = "the run itself"
) -> Iterator[Planned]:
    """All runs that a command will train, in order; finished ones are among them.

    Args:
      config: settings of the last one.
      folder: its folder.
      name: its name.
    """
    for own in prerequisites(config, folder):
        if own.first:
            yield from planned(own.config, own.folder, own.name)
            continue
        settings = own.config.copy_and_resolve_references()
        (before,) = settings.teachers
        if not Workdir(pathlib.Path(before)).summary.is_file():
            settings.teachers = tuple(settings.networks)  # a network like the one to come
        yield Planned(own.name, own.folder, settings)
    yield Planned(name, folder, config)


@dataclasses.dataclass(frozen=True)
class _Costed:
    """A run with its costs, over all seeds and devices.

    Attributes:
      run: without data.
      cost: of one seed.
    """

    run: Run
    cost: Costs

    @property
    def step_flops(self) -> float:
        return self.cost.step_flops * len(self.run.seeds)

    @property
    def memory(self) -> int:
        """Bytes of each device: state, kept activations, batch, and the data set if it is there."""
        run, seeds = self.run, len(self.run.seeds)
        at_once = 1 if speedups.seeds_take_turns(run.devices.platform) else seeds
        image = int(np.prod(run.splits.image_shape))
        resident = 0 if run.streams else len(run.splits.train) * (image + 4)
        return self.cost.state * seeds + (self.cost.kept + self.cost.batch) * at_once + resident

    @property
    def checkpoints(self) -> int:
        """Bytes on disk at the end."""
        saves = -(-self.run.total_steps // self.run.checkpoint_every)
        return self.cost.state * len(self.run.seeds) * min(KEPT, saves)

    @property
    def metrics(self) -> int:
        """Bytes of metrics.jsonl at the end."""
        run = self.run
        lines = max(1, run.total_steps // run.log_every)
        measured = {**flatten(self.cost.metrics), "images_per_second": 0}
        train = lines * _record_bytes(run, "train", measured)
        sums = jax.tree.map(lambda x: np.ones(x.shape), self.cost.evaluated)
        splits = [part for part in ("heldout", "test") if len(getattr(run.splits, part))]
        evaluations = -(-run.total_steps // run.eval_every)
        each = sum(_record_bytes(run, part, evaluation(sums)) for part in splits)
        return (train + evaluations * each) * len(run.seeds)


def _record_bytes(run: Run, kind: str, measured: dict[str, Any]) -> int:
    """Of a line with what is measured, whatever the numbers."""
    step = run.total_steps
    head = {"kind": kind, "step": step, "epoch": _NUMBER, "seed": run.seeds[-1]}
    numbers = jax.tree.map(lambda _: _NUMBER, measured)
    return len(json.dumps({**head, **numbers})) + 1


def dry_run(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path = "", *, timed: bool = False
) -> Iterator[str]:
    """Yields paragraphs: loss graph, networks, data, all runs with their costs, perhaps times.

    Args:
      config: settings.
      workdir: folder of the run; what is finished there is seen. None if empty.
      timed: also compile a step of each kind of run, and time it on images of random pixels.

    Raises:
      SettingError: for anything in the settings that cannot work, or if the data's size cannot be
        found out.
    """
    folder = pathlib.Path(workdir or "WORKDIR")
    last = _Costed(run := assemble(config, workdir, outlined=True), _costs(run))
    yield describe_plan(run.plan, last.cost) + "\n\n" + _data(run) + "\n"
    runs = [*planned(config, folder)]
    known = {runs[-1].recipe: last}
    for each in runs:
        if each.recipe not in known:
            own = assemble(each.config, each.folder, outlined=True)
            known[each.recipe] = _Costed(own, _costs(own))
    yield _table(runs, known, folder)
    if timed:
        yield ""
        yield from _timed(runs, known)


def _costs(run: Run) -> Costs:
    return costs(run.plan, run.batch_size, len(run.devices.devices))


def _data(run: Run) -> str:
    splits, devices = run.splits, run.devices
    several = f", {len(run.seeds)} seeds at once (all above per seed)" * (len(run.seeds) > 1)
    most = "at most " * (run.early_stopping.patience > 0)
    return (
        f"data: {len(splits.train):,} train, {len(splits.heldout):,} held out, "
        f"{len(splits.test):,} test; images {splits.image_shape}, {splits.classes} classes\n"
        f"{most}{run.total_steps:,} steps of {run.batch_size} images "
        f"({run.total_steps / run.steps_per_epoch:.4g} epochs) on {len(devices.devices)} x "
        f"{devices.platform}, {devices.mode}{several}"
    )


_NAME, _FOLDER = 22, 18  # characters


def _table(runs: list[Planned], known: dict[str, _Costed], folder: pathlib.Path) -> str:
    """All runs, in 100 columns; FLOPs, memory and disk are those of all seeds."""
    lines = [
        f"{'runs, in order':<{_NAME}}{'folder':<{_FOLDER}}{'steps':>9}{'FLOPs/step':>11}"
        f"{'FLOPs':>8}{'memory':>9}{'disk':>9}"
    ]
    steps, flops, disk = 0, 0.0, 0
    for each in runs:
        own = known[each.recipe]
        count, size = own.run.total_steps, own.checkpoints + own.metrics
        steps, flops, disk = steps + count, flops + own.step_flops * count, disk + size
        where = "." if each.folder == folder else str(each.folder.relative_to(folder))
        lines.append(
            f"{_cut(each.name, _NAME)}{_cut(where, _FOLDER)}{count:>9,}"
            f"{_unit(own.step_flops):>11}{_unit(own.step_flops * count):>8}"
            f"{_size(own.memory):>9}{_size(size):>9}  {each.state}"
        )
    if len(runs) > 1:
        rest = f"{'':>11}{_unit(flops):>8}{'':>9}{_size(disk):>9}"
        lines.append(f"{'together':<{_NAME + _FOLDER}}{steps:>9,}{rest}")
    last = known[runs[-1].recipe]
    there = device_memory(last.run.devices.devices)
    has = f", which has {_size(there)}" if there else ""
    lines += [
        "",
        f"folder: below {folder}",
        "FLOPs: of forward and backward passes and all updates",
        f"memory: of a device{has}: state, batch, data set in memory, and what forward passes",
        "  keep for backward passes, before the compiler's work",
        f"disk: checkpoints and metrics, {_size(last.checkpoints)} and {_size(last.metrics)} for "
        "the run itself",
    ]
    lines += [
        f"note: {each.name} may not fit into the memory of a device"
        for each in runs
        if there and known[each.recipe].memory > there
    ]
    return "\n".join(lines)


def _cut(text: str, width: int) -> str:
    """Padded; of what is too long, three letters and the end.

    >>> _cut("generation_1/teacher_0", 18)
    'gen.._1/teacher_0 '
    """
    return f"{text if len(text) < width else text[:3] + '..' + text[6 - width :]:<{width}}"


def _unit(value: float) -> str:
    """With a letter for its size.

    >>> _unit(48.2e9), _unit(5.64e15), _unit(12)
    ('48.2 G', '5.64 P', '12 ')
    """
    step = min(6, int(math.log10(max(value, 1)) / 3 + 1e-9))
    return f"{value / 1000**step:.3g} {' kMGTPE'[step].strip()}"


def _size(count: float) -> str:
    """Bytes.

    >>> _size(3 * 2**20), _size(1000 * 2**20), _size(1.5 * 2**30), _size(100)
    ('3.0 MiB', '1000 MiB', '1.5 GiB', '0.1 KiB')
    """
    unit, size = next(
        (u for u in (("GiB", 2**30), ("MiB", 2**20)) if count >= u[1]), ("KiB", 2**10)
    )
    return f"{count / size:.{1 if count < 100 * size else 0}f} {unit}"


def _timed(runs: list[Planned], known: dict[str, _Costed]) -> Iterator[str]:
    """A line for each kind of run that is not finished, and when all will be."""
    seconds, timings = 0.0, dict[str, Timing]()
    for each in runs:
        if each.finished:
            continue
        run = known[each.recipe].run
        if each.recipe not in timings:
            timings[each.recipe] = own = time_step(run)
            memory = f", {_size(own.memory)} on a device" if own.memory else ""
            yield (
                f"{each.name}: compiled in {own.compile_seconds:.1f} s{memory}; "
                f"{own.images_per_second(run):,.0f} images/s"
            )
        own = timings[each.recipe]
        seconds += own.compile_seconds + own.step_seconds * (run.total_steps - each.steps_done)
    last = known[runs[-1].recipe].run
    but = ["evaluations"]
    but += ["reading images"] * last.streams
    but += ["preparing teachers"] * bool(last.plan.method.preparation_epochs)
    yield f"all that is left: {_words(seconds)}, without {' and '.join(but)}"


def _words(seconds: float) -> str:
    """A length of time.

    >>> _words(59), _words(600), _words(7200), _words(1e6)
    ('59 s', '10.0 min', '2.0 h', '11.6 days')
    """
    for unit, size, least in (("days", 86400, 172800), ("h", 3600, 7200), ("min", 60, 120)):
        if seconds >= least:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
