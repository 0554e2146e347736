"""One training run from settings to summary; reads from top to bottom."""

import contextlib
import functools
import json
import pathlib
import signal
import time
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections
from jax.experimental import multihost_utils

from afd_jax import report
from afd_jax.assemble import Run, assemble, seed_key
from afd_jax.checkpoint import Checkpoints
from afd_jax.cohort import init_state
from afd_jax.data import Examples, eval_batches, train_batches
from afd_jax.errors import SettingError
from afd_jax.metrics import MetricsLog, Record, evaluation, mean_of
from afd_jax.state import TrainState
from afd_jax.step import eval_step, train_step

# What may differ between two commands that continue one run: nothing that changes its numbers.
_MAY_CHANGE = (
    "parallel",
    "log_every",
    "checkpoint_every",
    "eval_batch_size",
    "data_dir",
    "download",
)


class Interrupted(Exception):
    """Training was asked to stop; the state is saved."""


def train(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path, *, show_progress: bool = True
) -> Record:
    """Trains what the settings say, or continues it, and leaves everything in `workdir`.

    Writes config.json, metrics.jsonl, checkpoints/, summary.json and curves.png. The same call
    again continues after an interruption, and returns the summary of a finished run.

    Args:
      config: settings, from a config file.
      workdir: folder of this run alone.
      show_progress: print a progress bar, or lines where there is no terminal.

    Returns:
      The summary, as in summary.json.

    Raises:
      SettingError: if a setting cannot work, before anything is compiled or written.
      Interrupted: after Ctrl-C or SIGTERM, when the state is on disk.
    """
    # 1. Settings: everything that can be wrong is found here.
    run = assemble(config)
    folder = pathlib.Path(workdir)
    _claim_workdir(folder, config)
    shown = show_progress and jax.process_index() == 0
    say = print if shown else _silent

    # 2. State: new, or the newest checkpoint.
    state = run.parallel.put_state(init_state(run.cohort, seed_key(run.seed)))
    checkpoints = Checkpoints(folder / "checkpoints")
    times = {"compile_seconds": 0.0, "train_seconds": 0.0, "timed_steps": 0}
    restored = checkpoints.restore(state)
    if restored:
        state, times = restored
        state = run.parallel.put_state(state)
        say(f"continuing {folder} at step {int(state.step)} of {run.total_steps}")
    log = MetricsLog(folder / "metrics.jsonl", int(state.step))

    # 3. Finished already?
    summary_file = folder / "summary.json"
    if int(state.step) >= run.total_steps and summary_file.is_file():
        checkpoints.close()
        summary = json.loads(summary_file.read_text())
        say(f"{folder} is finished; remove it or name another --workdir to train again")
        say(report.table(summary))
        return summary

    # 4. Train; then the summary, from the last epoch.
    try:
        with _stop_signals() as stop:
            state = _loop(run, state, log, checkpoints, times, stop, shown)
    finally:
        checkpoints.close()
    summary = report.summarise(run, log.records, times)
    if jax.process_index() == 0:
        _write_json(summary_file, summary)
        report.plot_curves(run, log.records, folder / "curves.png")
    say(report.table(summary))
    say(f"written: {folder}/ with summary.json, metrics.jsonl, curves.png, checkpoints/")
    return summary


def _loop(
    run: Run,
    state: TrainState,
    log: MetricsLog,
    checkpoints: Checkpoints,
    times: dict[str, float],
    stop: "_Stop",
    shown: bool,
) -> TrainState:
    start = int(state.step)
    batches = train_batches(
        run.splits.train,
        run.batch_size,
        seed=run.seed,
        start_step=start,
        end_step=run.total_steps,
    )
    step_fn = functools.partial(train_step, run.device_cohort, preprocess=run.recipe.train)
    update = run.parallel.compile(step_fn, donate=True)
    evaluate = _Evaluator(run)
    waiting: list[Any] = []
    with report.Progress(run, start, shown) as progress:
        clock = _Clock(times)
        for step, batch in enumerate(batches, start + 1):
            state, metrics = update(state, run.parallel.put_batch(batch))
            waiting.append(metrics)
            if step == start + 1:
                jax.block_until_ready(metrics)
                clock.compiled()

            last = step == run.total_steps
            stopping = stop.wanted(step % run.log_every == 0)
            if step % run.log_every == 0 or step % run.eval_every == 0 or last or stopping:
                # Fetching the metrics waits for the device, so the clock is read after it.
                means = mean_of(waiting)
                rate = clock.trained(steps=len(waiting)) * run.batch_size
                epoch = step / run.steps_per_epoch
                record = {"kind": "train", "step": step, "epoch": epoch, **means}
                log.write(record | {"images_per_second": rate})
                progress.trained(log.records[-1])
                waiting = []
            if step % run.eval_every == 0 or last:
                for record in evaluate(state, step):
                    log.write(record)
                    progress.evaluated(record)
            if step % run.checkpoint_every == 0 or last or stopping:
                checkpoints.save(run.parallel.shared_state(state), times)
            if not waiting:
                clock.restart()
            if stopping and not last:
                raise Interrupted(f"stopped at step {step} of {run.total_steps}, state saved")
    return state


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

    def compiled(self) -> None:
        """The first step is done, compilation included."""
        self._times["compile_seconds"] += time.perf_counter() - self._start
        self._uncounted = 1
        self.restart()

    def trained(self, steps: int) -> float:
        """Counts steps that are done; returns steps per second, 0 if none were timed."""
        seconds, timed = time.perf_counter() - self._start, steps - self._uncounted
        self._uncounted = 0
        self._times["train_seconds"] += seconds if timed else 0.0
        self._times["timed_steps"] += timed
        return timed / seconds if timed else 0.0


class _Evaluator:
    """Measures a state on the whole held-out and test sets."""

    def __init__(self, run: Run):
        self._run = run
        step = functools.partial(eval_step, run.device_cohort, preprocess=run.recipe.test)
        self._step = run.parallel.compile(step, donate=False)

    def __call__(self, state: TrainState, step: int) -> Iterator[Record]:
        for split in ("heldout", "test"):
            examples: Examples = getattr(self._run.splits, split)
            if len(examples):
                batches = eval_batches(examples, self._run.eval_batch_size)
                sums = [self._step(state, self._run.parallel.put_batch(b)) for b in batches]
                epoch = step / self._run.steps_per_epoch
                yield {"kind": split, "step": step, "epoch": epoch, **evaluation(sums)}


class _Stop:
    """Whether the run has been asked to stop."""

    asked = False

    def wanted(self, may_wait: bool) -> bool:
        """Asks; with several hosts all must agree, which takes a message, so only now and then."""
        if jax.process_count() == 1:
            return self.asked
        return may_wait and bool(multihost_utils.process_allgather(self.asked).any())


@contextlib.contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop; a second one acts at once."""
    stop = _Stop()

    def handle(number: int, frame: Any) -> None:
        stop.asked = True
        signal.signal(number, before[signal.Signals(number)])

    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        before = {number: signal.signal(number, handle) for number in numbers}
    except ValueError:  # not in the main thread: then signals are somebody else's
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _claim_workdir(folder: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Makes the folder and writes config.json, or checks that the one there says the same."""
    settings = json.loads(config.to_json_best_effort())
    file = folder / "config.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if file.is_file():
            _compare(settings, json.loads(file.read_text()), folder, "config")
        elif jax.process_index() == 0:
            _write_json(file, settings)
    except OSError as error:
        raise SettingError("--workdir", str(folder), f"cannot be written ({error})") from error


def _compare(new: Any, old: Any, folder: pathlib.Path, field: str) -> None:
    if isinstance(new, dict) and isinstance(old, dict):
        for key in {**old, **new}:
            if key not in _MAY_CHANGE:
                _compare(new.get(key), old.get(key), folder, f"{field}.{key}")
    elif new != old:
        remedy = f"the run in {folder} has {old!r}; use that value, or another --workdir"
        raise SettingError(field, new, remedy)


def _write_json(file: pathlib.Path, content: Any) -> None:
    """Writes aside and renames, so that nobody reads half a file."""
    aside = file.with_suffix(".tmp")
    aside.write_text(json.dumps(content, indent=2) + "\n")
    aside.replace(file)


def _silent(*_: Any) -> None:
    pass
