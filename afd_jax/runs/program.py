"""The compiled programs of a run: training data on the devices, several steps and seeds at once.

Each gives the numbers of the pure functions in `afd_jax.engine.step`, called one step and one seed
at a time on batches from the host.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from afd_jax.data import (
    Examples,
    NumpyBatch,
    Streamed,
    eval_batches,
    eval_stream,
    prefetch_to_device,
    train_rows,
    train_stream,
    with_partners,
)
from afd_jax.engine import seeds
from afd_jax.engine.evaluate import eval_step, heldout_step
from afd_jax.engine.prepare import prepare
from afd_jax.engine.state import TrainState
from afd_jax.engine.step import Metrics, train_step
from afd_jax.runs.assemble import Run
from afd_jax.runs.watchdog import Watchdog


class Update:
    """Some steps of training in one call.

    Of a set in memory the images stay on the devices, and their rows are sent; of one on disk
    (`data.streaming`) the images are sent, ahead of the step that takes them.

    Args:
      run: as assembled.
      start: the step that it begins from.
    """

    def __init__(self, run: Run, start: int):
        self.steps = steps_per_call(run, start)
        self._run = run
        self._start = start
        train = run.splits.train
        resident = {} if run.streams else {"image": train.images, "label": train.labels}
        self._data = run.devices.put_state(resident)
        step = functools.partial(_some_steps, run)
        self._step = run.devices.compile(step, donate=True, shared=True)

    def batches(self) -> Iterator[NumpyBatch]:
        """What each call trains on, on the host.

        "index", rows of the training set [batch, steps] or [batch, steps, seeds]; for methods that
        pair images "partner", likewise; for a set on disk "image" and "label".
        """
        each = self._each_step()
        with contextlib.closing(each):
            for first in each:
                steps = [first, *(next(each) for _ in range(self.steps - 1))]
                yield jax.tree.map(lambda *rows: np.stack(rows, axis=1), *steps)

    def placed(self) -> Any:
        """The batches on the devices, some ahead if they come from disk; `close()` stops that."""
        put = self._run.devices.put_batch
        if self._run.streams:
            return prefetch_to_device(self.batches(), put)
        return (put(batch) for batch in self.batches())

    def _each_step(self) -> Generator[NumpyBatch, None, None]:
        run = self._run
        if run.streams:
            return train_stream(
                run.splits.train,
                run.batch_size,
                seed=run.seeds[0],
                start_step=self._start,
                end_step=run.total_steps,
            )
        each = train_rows(
            len(run.splits.train),
            run.batch_size,
            seeds=run.seeds,
            start_step=self._start,
            end_step=run.total_steps,
            labels=run.paired_labels,
        )
        if not run.plan.method.pairs:
            return ({"index": rows} for rows in each)
        return with_partners(
            each,
            run.splits.train.labels,
            seeds=run.seeds,
            start_step=self._start,
            steps_per_epoch=run.steps_per_epoch,
        )

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
        """Trains on one item of `placed`; metrics have shape [steps] or [steps, seeds].

        Terms are measured apart in the last step before a log line alone.
        """
        return self._step(state, batch, self._data)

    def compile(self, state: TrainState, batch: Any) -> Any:
        """Compiles for these arguments ahead of the first call; returns JAX's compiled program."""
        self._step = self._step.lower(state, batch, self._data).compile()
        return self._step


def steps_per_call(run: Run, start: int) -> int:
    """The most steps, up to the wanted number, that end wherever something else is due."""
    due = [run.log_every, run.eval_every, run.checkpoint_every, run.total_steps, start]
    if learns(run):
        due.append(run.steps_per_epoch)
    if run.profile is not None:
        due += [run.profile.first, run.profile.last]
    common = math.gcd(*due)
    return max(n for n in range(1, run.steps_per_call + 1) if common % n == 0)


def learns(run: Run) -> bool:
    """Whether the method's memory is renewed from held-out images once an epoch."""
    return run.plan.memory is not None and run.plan.memory.uses_heldout


def _some_steps(
    run: Run, state: TrainState, batch: Any, data: Any, *, axis_name: str | None
) -> tuple[TrainState, Metrics]:
    def one(
        state: TrainState, rows: dict[str, jax.Array], detailed: jax.Array
    ) -> tuple[TrainState, Metrics]:
        taken = {name: values[rows["index"]] for name, values in data.items()}
        if "partner" in rows:
            taken["partner_image"] = data["image"][rows["partner"]]
        return train_step(
            run.device_plan,
            state,
            {**taken, **rows},
            preprocess=run.recipe.train,
            mix=run.recipe.mix,
            axis_name=axis_name,
            detailed=detailed,
        )

    step = seeds.mapped(one, len(run.seeds), (0, 1, None))
    rows = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), dict(batch))
    count = len(rows["index"])
    after = jnp.ravel(state.step)[0] + 1 + jnp.arange(count)
    # A run shorter than a window has its only line at the end.
    detailed = (after % run.log_every == 0) | (after == run.total_steps)
    if count > 1:
        return jax.lax.scan(lambda s, each: step(s, *each), state, (rows, detailed))
    state, metrics = step(state, jax.tree.map(lambda x: x[0], rows), detailed[0])
    return state, jax.tree.map(lambda x: x[None], metrics)


class Evaluate:
    """Sums over a whole set, with running statistics; a list with an item per seed.

    Args:
      run: as assembled.
      step: `eval_step` or `heldout_step`, perhaps with further arguments.
    """

    def __init__(self, run: Run, step: Any = eval_step):
        self._run = run

        def over_seeds(state: TrainState, batch: Any, axis_name: str | None) -> Any:
            one = functools.partial(
                step, run.device_plan, preprocess=run.recipe.test, axis_name=axis_name
            )
            return seeds.mapped(one, len(run.seeds), (0, None))(state, batch)

        self._step = run.devices.compile(over_seeds, donate=False)
        self._compiled = False

    def __call__(
        self, state: TrainState, examples: Examples | Streamed, watchdog: Watchdog
    ) -> list[Any]:
        """Goes through the examples once; tells the watchdog of each batch."""
        run = self._run
        if not self._compiled:
            watchdog.rest()
            self._compiled = True
        batches: Iterator[NumpyBatch]
        if isinstance(examples, Streamed):
            batches = eval_stream(examples, run.eval_batch_size)
        else:
            batches = eval_batches(examples, run.eval_batch_size)
        sums: list[Any] = []
        for batch in batches:
            sums.append(self._step(state, run.devices.put_batch(batch)))
            jax.block_until_ready(sums[-2:-1])  # the device always has the next one to do
            watchdog.alive()
        total = jax.tree.map(lambda *parts: np.sum(parts, 0, np.float64), *jax.device_get(sums))
        return seeds.split(total, len(run.seeds))


def evaluate_networks(run: Run, networks: Sequence[str], **more: Any) -> Evaluate:
    """An evaluation of some of the networks; more arguments as for `eval_step`."""
    return Evaluate(run, functools.partial(eval_step, networks=tuple(networks), **more))


class Learn:
    """Renews the method's memory from the held-out set."""

    def __init__(self, run: Run):
        self._run = run
        self._sums = Evaluate(run, heldout_step)

    def __call__(self, state: TrainState, watchdog: Watchdog) -> TrainState:
        """The state with a new memory."""
        run, memory = self._run, self._run.plan.memory
        assert memory is not None
        sums = self._sums(state, run.splits.heldout, watchdog)
        before = seeds.split(state.memory, len(run.seeds))
        renewed = [memory.after_epoch(m, s) for m, s in zip(before, sums, strict=True)]
        new = seeds.join(renewed)
        new = jax.tree.map(lambda x, old: jnp.asarray(x, old.dtype), new, state.memory)
        return dataclasses.replace(state, memory=run.devices.put_state(new))


def prepared(run: Run, state: TrainState, going_on: Callable[[int], None]) -> TrainState:
    """The state with what the method trains on teachers before the first step.

    Args:
      run: as assembled.
      state: at the beginning, on the host or anywhere.
      going_on: called before each batch with the number of those done; may raise.
    """
    steps = max(1, round(run.plan.method.preparation_epochs * run.steps_per_epoch))

    def batches(seed: int) -> Iterator[Mapping[str, Any]]:
        train, size, ends = run.splits.train, run.batch_size, {"start_step": 0, "end_step": steps}
        each: Any
        if run.streams:
            each = train_stream(train, size, seed=seed, **ends)
        else:
            labels = run.paired_labels
            each = train_rows(len(train), size, seeds=[seed], whole=True, labels=labels, **ends)
        with contextlib.closing(each):
            for done, own in enumerate(each):
                going_on(done)
                yield own if run.streams else {"image": train.images[own], "index": own}

    own = seeds.split(state, len(run.seeds))
    trained = [
        prepare(run.plan, each, functools.partial(batches, seed), run.recipe.train)
        for each, seed in zip(own, run.seeds, strict=True)
    ]
    return seeds.join(trained)
