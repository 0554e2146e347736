"""One training run from settings to summary; reads from top to bottom."""

import contextlib
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections
from jax.experimental import multihost_utils

from afd_jax.reports import report
from afd_jax.runs.assemble import Run, assemble
from afd_jax.runs.checkpoint import Checkpoints
from afd_jax.runs.lock import claim_teachers, claimed
from afd_jax.errors import SettingError
from afd_jax.runs.metrics import Diverged, MetricsLog, Record, evaluation, mean_of, mean_record
from afd_jax.runs.program import Evaluate, Learn, Update
from afd_jax.runs.signals import Stop, stop_signals
from afd_jax.runs.prerequisites import stages
from afd_jax.engine.state import TrainState
from afd_jax.runs.workdir import Workdir, read_json, write_json


class Interrupted(Exception):
    """Training was asked to stop; the state is saved."""


def train(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path, *, show_progress: bool = True
) -> Record:
    """Trains what the settings say, or continues it, and leaves everything in `workdir`.

    Writes config.json, data.json, metrics.jsonl, checkpoints/, summary.json and curves.png; before
    it, in folders below, what the run needs: teachers, generations (see `stages`). The same call
    again continues after an interruption, and returns the summary of a finished run.

    Args:
      config: settings, from a config file.
      workdir: folder of this run alone.
      show_progress: print a progress bar, or lines where there is no terminal.

    Returns:
      The summary, as in summary.json.

    Raises:
      SettingError: if a setting cannot work, before anything is compiled.
      Diverged: if a loss is not finite; the last checkpoint stays.
      Interrupted: after Ctrl-C or SIGTERM, when the state is on disk.
    """
    # Settings: everything that can be wrong is found here.
    run = assemble(config, workdir)
    folder = Workdir(pathlib.Path(workdir))
    shown = show_progress and jax.process_index() == 0
    with claimed(folder, config, run):
        if not folder.summary.is_file() and _train_before(config, folder, shown):
            run = assemble(config, workdir)
        return _train(run, folder, shown)


def _train_before(config: ml_collections.ConfigDict, folder: Workdir, shown: bool) -> bool:
    """Trains teachers and the like, or finishes them; whether there are any."""
    before = stages(config, folder.path)
    for stage in before:
        if Workdir(stage.folder).summary.is_file():
            continue
        if shown:
            print(f"first: {stage.name}, in {stage.folder}")
        try:
            train(stage.config, stage.folder, show_progress=shown)
        except (Diverged, Interrupted) as error:
            raise type(error)(f"{stage.name}: {error}") from error
        if jax.process_count() > 1:  # until its files are there
            multihost_utils.sync_global_devices(str(stage.folder))
    return bool(before)


def _train(run: Run, folder: Workdir, shown: bool) -> Record:
    say = print if shown else _silent
    commit = report.commit()  # of the code that runs, before anybody changes it

    # 1. Finished already?
    claim_teachers(folder, run)
    if folder.summary.is_file():
        summary = read_json(folder.summary)
        say(f"{folder.path} is finished; remove it or name another --workdir to train again")
        say(report.table(summary))
        return summary

    # 2. State: new, or the newest checkpoint.
    state = run.parallel.put_state(run.initial_state())
    times = {"compile_seconds": 0.0, "train_seconds": 0.0, "timed_steps": 0}
    with Checkpoints(folder.checkpoints) as checkpoints:
        restored = checkpoints.restore(state)
        if restored:
            state, times = restored
            state = run.parallel.put_state(state)
            say(f"continuing {folder.path} at step {state.steps_done} of {run.total_steps}")
        log = MetricsLog(folder.metrics, state.steps_done)

        # 3. Train.
        with stop_signals() as stop:
            _loop(run, state, log, checkpoints, times, stop, shown)

    # 4. Summary, from the last epoch.
    if not any(r["kind"] == "test" and r["step"] == run.total_steps for r in log.records):
        remedy = f"lacks the evaluation of the last step, {run.total_steps}; put a copy back"
        raise SettingError("--workdir", str(folder.metrics), remedy)
    summary = report.summarise(run, log.records, times, commit)
    if generations := folder.generations():
        summary["generations"] = generations
    if jax.process_index() == 0:
        report.plot_curves(run, log.records, folder.curves)
        write_json(folder.summary, summary)  # the last file: it says that the run is finished
    say(report.table(summary))
    say(f"written: {folder.path}/ with summary.json, metrics.jsonl, curves.png, checkpoints/")
    return summary


def _loop(
    run: Run,
    state: TrainState,
    log: MetricsLog,
    checkpoints: Checkpoints,
    times: dict[str, float],
    stop: Stop,
    shown: bool,
) -> None:
    start = state.steps_done
    update = Update(run, start)
    evaluate, learn = Evaluate(run), Learn(run)
    waiting: list[Any] = []
    batches = update.placed()
    with report.Progress(run, start, shown) as progress, contextlib.closing(batches):
        clock = _Clock(times)
        for call, batch in enumerate(batches, 1):
            state, metrics = update(state, batch)
            step = start + call * update.steps
            waiting.append(metrics)
            if call == 1:
                jax.block_until_ready(metrics)
                clock.compiled(update.steps)

            last = step == run.total_steps
            stopping = stop.wanted(step)
            evaluating = step % run.eval_every == 0 or last
            saving = step % run.checkpoint_every == 0 or last or stopping
            learning = run.cohort.method.uses_heldout and step % run.steps_per_epoch == 0
            if step % run.log_every == 0 or evaluating or saving or learning:
                # A log line ends wherever a run can continue, so that its means are the same then.
                # Fetching the metrics waits for the device, so the clock is read after it.
                each = mean_of(waiting, len(run.seeds))
                rate = clock.trained(steps=len(waiting) * update.steps) * run.batch_size
                speed = {"images_per_second": rate * len(run.seeds)}
                progress.trained(_write(log, run, "train", step, each, speed))
                waiting = []
            if learning:
                state = learn(state)
            if evaluating:
                for split in ("heldout", "test"):
                    if len(examples := getattr(run.splits, split)):
                        each = [evaluation(sums) for sums in evaluate(state, examples)]
                        progress.evaluated(_write(log, run, split, step, each))
            if saving:
                checkpoints.save(run.parallel.shared_state(state), times)
            if not waiting:
                clock.restart()
            if stopping and not last:
                raise Interrupted(f"stopped at step {step} of {run.total_steps}, state saved")


def _write(
    log: MetricsLog,
    run: Run,
    kind: str,
    step: int,
    each: Sequence[Record],
    more: Mapping[str, float] | None = None,
) -> Record:
    """Logs a record for each seed; returns their mean."""
    head = {"kind": kind, "step": step, "epoch": step / run.steps_per_epoch}
    records = [
        {**head, "seed": seed, **own, **(more or {})}
        for seed, own in zip(run.seeds, each, strict=True)
    ]
    for record in records:
        log.write(record)
    return mean_record(records)


class _Clock:
    """Time spent compiling and training; what comes between counts for neither.

    Args:
      times: "compile_seconds" (to the end of the first step of each session), "train_seconds" and
        "timed_steps" (all other steps), updated in place.
    """

    def __init__(self, times: dict[str, float]):
        self._times = times
        self._uncounted = 0
        self.restart()

    def restart(self) -> None:
        """Starts to count from here."""
        self._start = time.perf_counter()

    def compiled(self, steps: int) -> None:
        """The first steps are done, compilation included."""
        self._times["compile_seconds"] += time.perf_counter() - self._start
        self._uncounted = steps
        self.restart()

    def trained(self, steps: int) -> float:
        """Counts steps that are done; returns steps per second, 0 if none were timed."""
        seconds, timed = time.perf_counter() - self._start, steps - self._uncounted
        self._uncounted = 0
        self._times["train_seconds"] += seconds if timed else 0.0
        self._times["timed_steps"] += timed
        return timed / seconds if timed else 0.0


def _silent(*_: Any) -> None:
    pass
