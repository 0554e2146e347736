"""Measures how fast a training step is with each augmentation, beside none.

  python experiments/speed/augmentation.py [--size=32] [--channels=3] [--batch=128] \
      [--network=resnet8] [--steps=10]

Random images that lie on the device, one network that learns from the labels. For each
augmentation: images per second of `Recipe.train` by itself (mixup and CutMix are not in it, they
belong to the step), and of the whole step; medians over steps.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from afd_jax.data import Recipe
from afd_jax.engine.cohort import Cohort
from afd_jax.engine.devices import make_devices
from afd_jax.engine.step import train_step
from afd_jax.methods import Independent

AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "pad 4, crop, flip": {"pad": 4, "flip": True},
    "mixup 0.2": {"mixup": 0.2},
    "CutMix 1.0": {"cutmix": 1.0},
    "mixup and CutMix": {"mixup": 0.2, "cutmix": 1.0},
    "erase 0.25": {"erase": 0.25},
    "TrivialAugment": {"trivial_augment": True},
    "all": {"pad": 4, "flip": True, "mixup": 0.2, "cutmix": 1.0, "erase": 0.25}
    | {"trivial_augment": True},
}


def seconds(call: Callable[[], Any], steps: int) -> float:
    """The median time of a call, after one that compiles."""
    jax.block_until_ready(call())
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Prints a line for each augmentation."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("size", 32), ("channels", 3), ("batch", 128), ("steps", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--network", default="resnet8")
    given = parser.parse_args()

    shape = given.size, given.size, given.channels
    rng = np.random.default_rng(0)
    devices = make_devices("jit", 1)
    batch = devices.put_batch(
        {
            "image": rng.integers(256, size=(given.batch, *shape), dtype=np.uint8),
            "label": rng.integers(10, size=given.batch, dtype=np.int32),
            "index": np.arange(given.batch, dtype=np.int32),
        }
    )
    cohort = Cohort([given.network], Independent(), image_shape=shape, classes=10)
    first = devices.put_state(cohort.init(jax.random.key(0)))
    print(f"{devices.platform}, {given.network}, {given.batch} images of {shape}; images/s")
    print(f"{'augmentation':20} {'by itself':>12} {'whole step':>12}")
    for name, options in AUGMENTATIONS.items():
        recipe = Recipe((0.5,) * given.channels, (0.25,) * given.channels, **options)

        def step(state: Any, batch: Any, axis_name: str | None, recipe: Recipe = recipe) -> Any:
            more = {"preprocess": recipe.train, "mix": recipe.mix, "detailed": False}
            return train_step(cohort.plan, state, batch, axis_name=axis_name, **more)

        whole = functools.partial(devices.compile(step, donate=False), first, batch)
        own = functools.partial(jax.jit(recipe.train), jax.random.key(0), batch)
        rates = (given.batch / seconds(call, given.steps) for call in (own, whole))
        print(f"{name:20} {' '.join(f'{rate:12,.0f}' for rate in rates)}", flush=True)


if __name__ == "__main__":
    main()
