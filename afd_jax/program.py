"""The compiled programs of a run: training data on the devices, several steps and seeds at once.

Each gives the numbers of the pure functions in `afd_jax.step`, called one step and one seed at a
time on batches from the host.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from afd_jax import seeds
from afd_jax.assemble import Run
from afd_jax.data import Examples, eval_batches, train_rows
from afd_jax.state import TrainState
from afd_jax.step import Metrics, eval_step, heldout_step, train_step


class Update:
    """Some steps of training in one call; the images stay on the devices, rows are sent.

    Args:
      run: as assembled.
      start: the step that it begins from.
    """

    def __init__(self, run: Run, start: int):
        self.steps = steps_per_call(run, start)
        self._run = run
        self._start = start
        train = run.splits.train
        self._data = run.parallel.put_state({"image": train.images, "label": train.labels})
        step = functools.partial(_some_steps, run)
        self._step = run.parallel.compile(step, donate=True, shared=True)

    def batches(self) -> Iterator[np.ndarray]:
        """What each call trains on: rows of the training set [batch, steps] or [..., seeds]."""
        run = self._run
        each = train_rows(
            len(run.splits.train),
            run.batch_size,
            seeds=run.seeds,
            start_step=self._start,
            end_step=run.total_steps,
        )
        for rows in each:
            yield np.stack([rows, *(next(each) for _ in range(self.steps - 1))], axis=1)

    def __call__(
        self, state: TrainState, rows: np.ndarray
    ) -> tuple[TrainState, tuple[Metrics, ...]]:
        """Trains on one item of `batches`; metrics have shape [steps] or [steps, seeds]."""
        return self._step(state, self._run.parallel.put_batch({"index": rows}), self._data)


def steps_per_call(run: Run, start: int) -> int:
    """The most steps, up to the wanted number, that end wherever something else is due."""
    due = [run.log_every, run.eval_every, run.checkpoint_every, run.total_steps, start]
    if run.cohort.method.uses_heldout:
        due.append(run.steps_per_epoch)
    common = math.gcd(*due)
    return max(n for n in range(1, run.steps_per_call + 1) if common % n == 0)


def _some_steps(
    run: Run, state: TrainState, batch: Any, data: Any, *, axis_name: str | None
) -> tuple[TrainState, tuple[Metrics, ...]]:
    def one(state: TrainState, rows: jax.Array) -> tuple[TrainState, tuple[Metrics, ...]]:
        images = {name: values[rows] for name, values in data.items()}
        return train_step(
            run.device_cohort,
            state,
            {**images, "index": rows},
            preprocess=run.recipe.train,
            axis_name=axis_name,
        )

    step = seeds.mapped(one, len(run.seeds), (0, 1))
    rows = jnp.moveaxis(batch["index"], 1, 0)
    if len(rows) > 1:
        return jax.lax.scan(step, state, rows)
    state, metrics = step(state, rows[0])
    return state, jax.tree.map(lambda x: x[None], metrics)


class Evaluate:
    """Sums over a whole set, with running statistics; a list with an item per seed.

    Args:
      run: as assembled.
      step: `eval_step` or `heldout_step`.
    """

    def __init__(self, run: Run, step: Any = eval_step):
        self._run = run

        def over_seeds(state: TrainState, batch: Any, axis_name: str | None) -> Any:
            one = functools.partial(
                step, run.device_cohort, preprocess=run.recipe.test, axis_name=axis_name
            )
            return seeds.mapped(one, len(run.seeds), (0, None))(state, batch)

        self._step = run.parallel.compile(over_seeds, donate=False)

    def __call__(self, state: TrainState, examples: Examples) -> list[Any]:
        """Goes through the examples once."""
        run = self._run
        batches = eval_batches(examples, run.eval_batch_size)
        sums = [self._step(state, run.parallel.put_batch(batch)) for batch in batches]
        total = jax.tree.map(lambda *parts: np.sum(parts, 0, np.float64), *jax.device_get(sums))
        return seeds.split(total, len(run.seeds))


class Learn:
    """Renews the method's memory from the held-out set."""

    def __init__(self, run: Run):
        self._run = run
        self._sums = Evaluate(run, heldout_step)

    def __call__(self, state: TrainState) -> TrainState:
        """The state with a new memory."""
        run = self._run
        sums = self._sums(state, run.splits.heldout)
        before = seeds.split(state.memory, len(run.seeds))
        update = run.cohort.method.update_memory
        new = seeds.join([update(m, s) for m, s in zip(before, sums, strict=True)])
        memory = jax.tree.map(lambda x, old: jnp.asarray(x, old.dtype), new, state.memory)
        return dataclasses.replace(state, memory=run.parallel.put_state(memory))
