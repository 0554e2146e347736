"""One training run from settings to summary; reads from top to bottom."""

import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
from jax.experimental import multihost_utils

from afd_jax.data.extra import need
from afd_jax.engine.init import state_shapes
from afd_jax.engine.state import TrainState
from afd_jax.errors import Diverged, Interrupted, SettingError, naming
from afd_jax.reports.curves import plot_curves
from afd_jax.reports.facts import Facts, graph_facts, with_role
from afd_jax.reports.summary import commit, mean_record, summarise
from afd_jax.reports.terminal import Progress, table
from afd_jax.runs.assemble import Run, assemble
from afd_jax.runs.bucket import in_bucket, mirrored
from afd_jax.runs.checkpoint import Checkpoints
from afd_jax.runs.lock import claim_weights, claimed
from afd_jax.runs.metrics import MetricsLog, Record, Window, evaluation, set_metrics_aside
from afd_jax.runs.overrides import as_json, read_config
from afd_jax.runs.prerequisites import prerequisites
from afd_jax.runs.profile import Profile, device_memory, peak_memory
from afd_jax.runs.program import Evaluate, Learn, Update, evaluate_networks, learns, prepared
from afd_jax.runs.signals import Stop, stop_signals
from afd_jax.runs.watchdog import Watchdog
from afd_jax.runs.workdir import Workdir, write_json
from afd_jax.runs.writers import Writers

_MUCH = 2**30  # bytes of a method's memory that are worth a word


def train(
    config: ml_collections.ConfigDict | str,
    workdir: str | pathlib.Path,
    *,
    show_progress: bool = True,
) -> Record:
    """Trains what the settings say, or continues it, and leaves everything in `workdir`.

    Writes config.json, data.json, graph.json, metrics.jsonl, checkpoints/, summary.json and
    curves.png; before it, in folders below, what the run needs: teachers, generations (see
    `runs.prerequisites`). The same call again continues after an interruption, and returns the
    summary of a finished run.

    Args:
      config: settings; or a config by name, "cifar100_afd:resnet32,resnet32", or file.
      workdir: folder of this run alone, or its address in a bucket, "gs://..." or "s3://...".
      show_progress: print a progress bar, or lines where there is no terminal.

    Returns:
      The summary, as in summary.json.

    Raises:
      SettingError: if a setting cannot work, before anything is compiled.
      Diverged: if a loss is not finite; the last checkpoint stays.
      Interrupted: after Ctrl-C or SIGTERM, when the state is on disk.
    """
    if isinstance(config, str):
        config = read_config(config)
    for package in ("matplotlib", "tqdm"):  # before hours of training, not after
        need(package, "workdir", str(workdir))
    if in_bucket(workdir):
        with mirrored(str(workdir)) as local:
            return train(config, local, show_progress=show_progress)
    # Settings: everything that can be wrong is found here.
    run = assemble(config, workdir)
    require_room(run)
    folder = Workdir(pathlib.Path(workdir))
    shown = show_progress and jax.process_index() == 0
    with claimed(folder, config, run):
        if not folder.summary.is_file() and _train_before(config, folder, shown):
            run = assemble(config, workdir)
        with Writers(config.writers, folder.path, as_json(config), run.seeds) as writers:
            return _train(run, folder, writers, shown)


def _train_before(config: ml_collections.ConfigDict, folder: Workdir, shown: bool) -> bool:
    """Trains teachers and the like, or finishes them; whether there are any."""
    before = prerequisites(config, folder.path)
    for own in before:
        if Workdir(own.folder).summary.is_file():
            continue
        if shown:
            print(f"first: {own.name}, in {own.folder}")
        try:
            train(own.config, own.folder, show_progress=shown)
        except (Diverged, Interrupted) as error:
            raise type(error)(f"{own.name}: {error}") from error
        if jax.process_count() > 1:  # until its files are there
            multihost_utils.sync_global_devices(str(own.folder))
    return bool(before)


def require_room(run: Run) -> None:
    """Raises SettingError for a state that does not fit into a device's memory.

    What a method remembers is said if it is much.
    """
    shapes = state_shapes(run.plan)
    sizes = {
        "networks": _bytes(shapes.networks) * len(run.seeds),
        "memory": _bytes(shapes.memory) * len(run.seeds),
    }
    name, there = type(run.plan.method).__name__, device_memory(run.devices.devices)
    words = f"{sizes['memory'] / 2**30:.1f} GiB of what {name} remembers"
    if there and sum(sizes.values()) > there:
        remedy = f"the state takes {sum(sizes.values()) / 2**30:.1f} GiB on each device ({words}), "
        remedy += f"which has {there / 2**30:.1f} GiB; take fewer seeds, networks or examples"
        raise SettingError("config.method.name", name, remedy)
    if sizes["memory"] > _MUCH and jax.process_index() == 0:
        print(f"note: each device keeps {words}")


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _train(run: Run, folder: Workdir, writers: Writers, shown: bool) -> Record:
    say = print if shown else _silent
    code = commit()  # of what runs, before anybody changes it

    # 1. Finished already?
    claim_weights(folder, run)
    if folder.summary.is_file():
        summary = folder.read_summary()
        say(f"{folder.path} is finished; remove it or name another --workdir to train again")
        say(table(summary))
        return summary

    # 2. State: new, or the newest checkpoint.
    state = run.devices.put_state(run.initial_state())
    notes: dict[str, Any] = {"compile_seconds": 0.0, "train_seconds": 0.0, "timed_steps": 0}
    facts = graph_facts(run.plan)
    saved = Checkpoints(folder.checkpoints, folder.settings(), folder.require_own)
    watchdog = Watchdog(run.step_timeout, alone=jax.process_count() == 1)
    with watchdog, saved as checkpoints, stop_signals() as stop:
        restored = checkpoints.restore(state)
        if restored:
            state, notes = restored
            state = run.devices.put_state(state)
            say(f"continuing {folder.path} at step {state.steps_done} of {run.total_steps}")
        elif run.plan.method.preparation_epochs and run.plan.graph.teachers:
            # 3. What the method trains on teachers first.
            say(f"preparing the teachers of {type(run.plan.method).__name__} ...")
            going_on = _unless(stop, watchdog)
            state = run.devices.put_state(prepared(run, jax.device_get(state), going_on))
            checkpoints.save(run.devices.shared_state(state), notes)
        if not restored and (aside := set_metrics_aside(folder.metrics)):
            say(f"no checkpoints in {folder.path}: from the beginning; old metrics are in {aside}")
        log = MetricsLog(folder.metrics, state.steps_done)
        writers.begin(log.records, state.steps_done)

        # 4. Train.
        profile = Profile(run.profile, folder.path / "profile")
        parts = (log, writers, profile, checkpoints, notes, stop, watchdog, shown)
        steps = _Loop(run, facts, *parts).go(state)

    # 5. Summary, from the last epoch.
    summary = summarise(
        facts,
        log.records,
        seeds=run.seeds,
        steps=steps,
        steps_per_epoch=run.steps_per_epoch,
        batch_size=run.batch_size,
        times=notes,
        device=_device(run),
        commit=code,
    )
    if steps < run.total_steps:
        summary["stopped_early"] = why = run.early_stopping.verdict(notes["watched"])
        assert why is not None
        say(
            f"stopped early at step {steps} of {run.total_steps}: in {why['patience']} evaluations "
            f"the held-out {why['watch']} has not fallen below {why['least']:.4g}, its value at "
            f"step {why['least_step']}"
        )
    if generations := folder.generations():
        summary["generations"] = generations
    if jax.process_index() == 0:
        writers.finish(summary)
        with naming(folder.curves):
            plot_curves(facts, log.records, folder.curves)
        write_json(folder.summary, summary)  # the last file: it says that the run is finished
    say(table(summary))
    say(f"written: {folder.path}/ with summary.json, metrics.jsonl, curves.png, checkpoints/")
    return summary


def _unless(stop: Stop, watchdog: Watchdog) -> Any:
    def going_on(step: int) -> None:
        watchdog.alive()
        if stop.wanted():
            raise Interrupted("stopped before the first step")

    return going_on


@dataclasses.dataclass
class _Loop:
    """The steps of a run, with what is due between them."""

    run: Run
    facts: Facts
    log: MetricsLog
    writers: Writers
    profile: Profile
    checkpoints: Checkpoints
    notes: dict[str, Any]
    stop: Stop
    watchdog: Watchdog
    shown: bool

    def go(self, state: TrainState) -> int:
        """Trains from the state to the end, the planned one or an earlier; returns its step."""
        self.notes.setdefault("watched", [])
        evaluations = self._evaluations()
        if not self._ended(state.steps_done):
            state = self._steps(evaluations, state)
        step = state.steps_done
        if not any(r["kind"] == "test" and r["step"] == step for r in self.log.records):
            # Lost since the last checkpoint was saved.
            list(self._evaluated(evaluations, state, step))
        return step

    def _ended(self, step: int) -> bool:
        """Whether this is the last step; the same on all hosts, and after an interruption."""
        early = self.run.early_stopping.verdict(self.notes["watched"])
        return step == self.run.total_steps or early is not None

    def _steps(self, evaluations: Mapping[str, Evaluate], state: TrainState) -> TrainState:
        run, start = self.run, state.steps_done
        update, learn = Update(run, start), Learn(run)
        window = Window(len(run.seeds), self.notes.pop("window", None))
        batches = update.placed()
        size = run.batch_size * len(run.seeds)
        progress = Progress(
            self.facts, total_steps=run.total_steps, batch_size=size, start=start, shown=self.shown
        )
        with progress, contextlib.closing(batches), self.profile:
            clock = _Clock(self.notes)
            for call, batch in enumerate(batches, 1):
                state, metrics = update(state, batch)
                step = start + call * update.steps
                window.add(metrics)
                if call == 1:
                    jax.block_until_ready(metrics)
                    clock.compiled(update.steps)
                    progress.compiled()
                clock.skip(self.profile.after(step, metrics))
                self.watchdog.alive()

                last = step == run.total_steps
                stopping = self.stop.wanted()
                logging = step % run.log_every == 0
                evaluating = step % run.eval_every == 0 or last
                saving = step % run.checkpoint_every == 0 or last or stopping
                learning = learns(run) and step % run.steps_per_epoch == 0
                if not (logging or evaluating or saving or learning):
                    continue
                self.checkpoints.require_saved()
                # Fetching the metrics waits for the device, so the clock is read after it.
                clock.lap(window.fold())
                window.require_finite(step)  # so that no checkpoint holds a run that has diverged
                # Windows are of one length; a run of less than one has a line at its end.
                if logging or (last and not self._has("train")):
                    more = {"images_per_second": clock.rate() * size}
                    more |= peak_memory(run.devices.devices)
                    progress.trained(self._write("train", step, window.means(), more))
                if learning:
                    state = learn(state)
                if evaluating:
                    for record in self._evaluated(evaluations, state, step):
                        progress.evaluated(record)
                        self._watch(record)
                    last = self._ended(step)
                if saving or last:
                    notes = {**self.notes, "window": window.notes()}
                    self.checkpoints.save(run.devices.shared_state(state), notes)
                clock.restart()
                if last:
                    break
                if stopping:
                    where = f"step {step} of {run.total_steps}"
                    raise Interrupted(f"stopped at {where}, state saved")
        return state

    def _watch(self, record: Record) -> None:
        """Notes what early stopping goes by; notes are part of every checkpoint."""
        stopping = self.run.early_stopping
        if stopping.patience and record["kind"] == "heldout":
            value = stopping.value(record, with_role(self.facts, "student"))
            self.notes["watched"] = [*self.notes["watched"], [record["step"], value]]

    def _evaluated(
        self, evaluations: Mapping[str, Evaluate], state: TrainState, step: int
    ) -> Iterator[Record]:
        """Evaluates, and logs it; yields the mean over seeds for each split."""
        for split in ("heldout", "test"):
            if len(getattr(self.run.splits, split)):
                yield self._write(split, step, self._evaluate(evaluations, state, split))
                self.watchdog.alive()

    def _has(self, kind: str) -> bool:
        return any(record["kind"] == kind for record in self.log.records)

    def _evaluations(self) -> dict[str, Evaluate]:
        """Programs for the networks that change, for those that do not, and for all of them."""
        networks = self.run.plan.networks
        frozen = [name for name, network in networks.items() if network.role == "teacher"]
        parts = {"changing": [n for n in networks if n not in frozen], "frozen": frozen}
        found = {part: evaluate_networks(self.run, own) for part, own in parts.items() if own}
        if self.run.early_stopping.divergence:
            found["together"] = evaluate_networks(self.run, [*networks], divergences=True)
        return found

    def _evaluate(
        self, evaluations: Mapping[str, Evaluate], state: TrainState, split: str
    ) -> list[Record]:
        """For each seed; what is frozen is in the first record of a split, or if it is compared."""
        examples = getattr(self.run.splits, split)
        if split == "heldout" and "together" in evaluations:
            return [evaluation(sums) for sums in evaluations["together"](state, examples)]
        each = [evaluation(sums) for sums in evaluations["changing"](state, examples)]
        if "frozen" in evaluations and not self._has(split):
            frozen = [evaluation(sums) for sums in evaluations["frozen"](state, examples)]
            for own, other in zip(each, frozen, strict=True):
                for name, values in other.items():
                    own[name] |= values
        return each

    def _write(
        self,
        kind: str,
        step: int,
        each: Sequence[Record],
        more: Mapping[str, float] | None = None,
    ) -> Record:
        """Logs a record for each seed; returns their mean."""
        head = {"kind": kind, "step": step, "epoch": step / self.run.steps_per_epoch}
        records = [
            {**head, "seed": seed, **own, **(more or {})}
            for seed, own in zip(self.run.seeds, each, strict=True)
        ]
        for record in records:
            self.log.write(record)
            self.writers.write(record)
        return mean_record(records)


class _Clock:
    """Time spent compiling and training; what comes between counts for neither.

    Args:
      times: "compile_seconds" (to the end of the first step of each session), "train_seconds" and
        "timed_steps" (all other steps), updated in place.
    """

    def __init__(self, times: dict[str, Any]):
        self._times = times
        self._uncounted = 0
        self._seconds, self._steps = 0.0, 0
        self.restart()

    def restart(self) -> None:
        """Starts to count from here."""
        self._start = time.perf_counter()

    def skip(self, seconds: float) -> None:
        """Leaves out seconds that just went into something else."""
        self._start += seconds

    def compiled(self, steps: int) -> None:
        """The first steps are done, compilation included."""
        self._times["compile_seconds"] += time.perf_counter() - self._start
        self._uncounted = steps
        self.restart()

    def lap(self, steps: int) -> None:
        """Counts steps that are done."""
        timed = steps - min(steps, self._uncounted)
        self._uncounted = 0
        if timed:
            seconds = time.perf_counter() - self._start
            self._seconds, self._steps = self._seconds + seconds, self._steps + timed
            self._times["train_seconds"] += seconds
            self._times["timed_steps"] += timed

    def rate(self) -> float:
        """Steps per second since the last call; 0 if none were timed."""
        rate = self._steps / self._seconds if self._steps else 0.0
        self._seconds, self._steps = 0.0, 0
        return rate


def _device(run: Run) -> str:
    first = run.devices.devices[0]
    kind = f"{os.cpu_count()} cores" if first.platform == "cpu" else first.device_kind
    return f"{len(run.devices.devices)} x {first.platform} ({kind}), {run.devices.mode}"


def _silent(*_: Any) -> None:
    pass
