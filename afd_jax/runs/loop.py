"""The steps of a run, with what is due between them."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from afd_jax.engine.state import TrainState
from afd_jax.errors import Interrupted
from afd_jax.reports.facts import Facts, with_role
from afd_jax.reports.summary import mean_record
from afd_jax.reports.terminal import Progress
from afd_jax.runs.assemble import Run
from afd_jax.runs.checkpoint import Checkpoints
from afd_jax.runs.metrics import MetricsLog, Record, Window, evaluation
from afd_jax.runs.profile import Profile, peak_memory
from afd_jax.runs.program import Evaluate, Learn, Update, evaluate_networks, learns
from afd_jax.runs.signals import Stop
from afd_jax.runs.watchdog import Watchdog
from afd_jax.runs.writers import Writers


@dataclasses.dataclass
class Loop:
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
        tested = {r["seed"] for r in self.log.records if (r["kind"], r["step"]) == ("test", step)}
        if tested != {*self.run.seeds}:
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
                    more: dict[str, float] = {**peak_memory(run.devices.devices)}
                    if rate := clock.rate():
                        more["images_per_second"] = rate * size
                    progress.trained(self._write("train", step, window.means(), more))
                if learning:
                    state = learn(state, self.watchdog)
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

        def measured(part: str) -> list[Record]:
            return [evaluation(s) for s in evaluations[part](state, examples, self.watchdog)]

        if split == "heldout" and "together" in evaluations:
            return measured("together")
        each = measured("changing")
        if "frozen" in evaluations and not self._has(split):
            frozen = measured("frozen")
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

    def rate(self) -> float | None:
        """Steps per second since the last call; None if none were timed."""
        rate = self._steps / self._seconds if self._steps else None
        self._seconds, self._steps = 0.0, 0
        return rate
