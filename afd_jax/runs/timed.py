"""The time of one step, measured on images of random pixels."""

import dataclasses
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from afd_jax.data import NumpyBatch, Outline, Splits
from afd_jax.engine import seeds
from afd_jax.networks.functional import draw
from afd_jax.runs.assemble import Run
from afd_jax.runs.program import Update

_CALLS, _SECONDS = 20, 5.0  # at most


@dataclasses.dataclass(frozen=True)
class Timing:
    """What was measured.

    Attributes:
      compile_seconds: or those of reading the program from the cache.
      step_seconds: of a step of all seeds.
      memory: bytes of a device that the compiler has planned; None if it does not say.
    """

    compile_seconds: float
    step_seconds: float
    memory: int | None

    def images_per_second(self, run: Run) -> float:
        """Over all seeds and devices, as a run's progress bar counts them."""
        return run.batch_size * len(run.seeds) / self.step_seconds


def time_step(run: Run) -> Timing:
    """Compiles the step of a run without data, and times it.

    Teachers that are not trained yet are drawn at random: time does not depend on them.

    Args:
      run: as `assemble` gives it with `outlined`.
    """
    run = dataclasses.replace(run, teachers=_teachers(run), splits=_drawn(run.splits))
    update = Update(run, 0)
    batch = run.devices.put_batch(next(_batches(run, update)))
    state = run.devices.put_state(run.initial_state())
    start = time.perf_counter()
    program = update.compile(state, batch)
    compile_seconds = time.perf_counter() - start
    state, metrics = update(state, batch)
    jax.block_until_ready(metrics)
    start, calls = time.perf_counter(), 0
    while calls < 1 or (calls < _CALLS and time.perf_counter() - start < _SECONDS):
        state, metrics = update(state, batch)
        jax.block_until_ready(metrics)
        calls += 1
    seconds = (time.perf_counter() - start) / (calls * update.steps)
    return Timing(compile_seconds, seconds, _memory(program))


def _teachers(run: Run) -> dict[str, Any]:
    drawn = {}
    for name, teacher in run.teachers.items():
        network = run.plan.networks[name]
        if teacher.variables is None:
            own = draw(network.module, run.plan.image_shape, network.start, jax.random.key(0))
            teacher = dataclasses.replace(teacher, variables=seeds.join([own] * len(run.seeds)))
        drawn[name] = teacher
    return drawn


def _drawn(splits: Splits) -> Splits:
    train = splits.train
    return dataclasses.replace(splits, train=train.drawn() if isinstance(train, Outline) else train)


def _batches(run: Run, update: Update) -> Iterator[NumpyBatch]:
    """Those of the run, or, where they come from disk, one like them."""
    if not run.streams:
        yield from update.batches()
        return
    rng, size = np.random.default_rng(0), (run.batch_size, update.steps)
    yield {
        "image": rng.integers(0, 256, (*size, *run.splits.image_shape), np.uint8),
        "label": rng.integers(0, run.splits.classes, size, np.int32),
        "index": np.arange(np.prod(size), dtype=np.int32).reshape(size),
    }


def _memory(program: Any) -> int | None:
    try:
        found = program.memory_analysis()
        total = found.argument_size_in_bytes + found.output_size_in_bytes
        return total - found.alias_size_in_bytes + found.temp_size_in_bytes
    except (AttributeError, NotImplementedError, jax.errors.JaxRuntimeError):
        return None
