"""Measures how fast a training step is with each augmentation, beside none.

  taskset -c 0 python -m experiments.speed.augmentation [--size=32] [--channels=3] \
      [--batch=128] [--network=resnet8] [--rounds=25] [--steps=1] \
      [--out=experiments/results/augmentation_speed.json]

Random images that lie on the device, one network that learns from the labels. For each
augmentation: the time of `Recipe.train` by itself (mixup and CutMix are not in it, they belong to
the step), and of the whole step. All are compiled first. A round then takes a few steps of each,
one augmentation after another, and each is compared with none of the same round. So a machine
whose speed changes slowly spoils no ratio. On a CPU, times are processor times of this process:
on one core they are what a quiet machine would take, whoever else uses it.
"""

import argparse
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from afd_jax.data import Recipe
from afd_jax.engine.cohort import Cohort
from afd_jax.engine.devices import make_devices
from afd_jax.engine.step import train_step
from afd_jax.methods import Independent
from afd_jax.reports.summary import commit
from experiments.speed.input_pipeline import processor

NONE = "none"
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    NONE: {},
    "pad 4, crop, flip": {"pad": 4, "flip": True},
    "mixup 0.2": {"mixup": 0.2},
    "CutMix 1.0": {"cutmix": 1.0},
    "mixup and CutMix": {"mixup": 0.2, "cutmix": 1.0},
    "erase 0.25": {"erase": 0.25},
    "TrivialAugment": {"trivial_augment": True},
    "all": {"pad": 4, "flip": True, "mixup": 0.2, "cutmix": 1.0, "erase": 0.25}
    | {"trivial_augment": True},
}

Calls = dict[str, Callable[[], Any]]


def calls(options: argparse.Namespace) -> tuple[Calls, Calls]:
    """By augmentation: what augments a batch, and what takes a whole step."""
    shape = options.size, options.size, options.channels
    rng = np.random.default_rng(0)
    devices = make_devices("jit", 1)
    batch = devices.put_batch(
        {
            "image": rng.integers(256, size=(options.batch, *shape), dtype=np.uint8),
            "label": rng.integers(10, size=options.batch, dtype=np.int32),
            "index": np.arange(options.batch, dtype=np.int32),
        }
    )
    cohort = Cohort([options.network], Independent(), image_shape=shape, classes=10)
    first = devices.put_state(cohort.init(jax.random.key(0)))
    own, whole = {}, {}
    for name, chosen in AUGMENTATIONS.items():
        recipe = Recipe((0.5,) * options.channels, (0.25,) * options.channels, **chosen)

        def step(state: Any, batch: Any, axis_name: str | None, recipe: Recipe = recipe) -> Any:
            more = {"preprocess": recipe.train, "mix": recipe.mix, "detailed": False}
            return train_step(cohort.plan, state, batch, axis_name=axis_name, **more)

        own[name] = functools.partial(jax.jit(recipe.train), jax.random.key(0), batch)
        whole[name] = functools.partial(devices.compile(step, donate=False), first, batch)
    return own, whole


def milliseconds(programs: Calls, rounds: int, steps: int) -> dict[str, list[float]]:
    """The mean time of a call, by augmentation and round."""
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    for call in programs.values():
        for _ in range(2):
            jax.block_until_ready(call())
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, call in programs.items():
            start = clock()
            for _ in range(steps):
                jax.block_until_ready(call())
            times[name].append(1e3 * (clock() - start) / steps)
    return times


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "lower": low, "upper": high}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All times, with what they were measured on."""
    own, whole = (milliseconds(c, options.rounds, options.steps) for c in calls(options))
    rows = [
        {
            "augmentation": name,
            "alone_ms": spread(own[name]),
            "images_per_second": spread(1e3 * options.batch / t for t in whole[name]),
            "ratio": spread(a / b for a, b in zip(whole[NONE], whole[name], strict=True)),
        }
        for name in AUGMENTATIONS
    ]
    packages = ("jax", "jaxlib", "flax", "numpy")
    given = ("network", "size", "channels", "batch", "rounds", "steps")
    return {
        **{name: getattr(options, name) for name in given},
        "platform": jax.devices()[0].device_kind,
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg(),
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in packages},
        },
        "augmentations": rows,
    }


def table(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    lines = [
        "| | by itself, ms a batch | images/s | beside none (quartiles) |",
        "|---|---|---|---|",
    ]
    for row in result["augmentations"]:
        ratio = row["ratio"]
        within = f"{ratio['median']:.2f} ({ratio['lower']:.2f} to {ratio['upper']:.2f})"
        alone, rate = row["alone_ms"]["median"], row["images_per_second"]["median"]
        last = "" if row["augmentation"] == NONE else within
        lines.append(f"| {row['augmentation']} | {alone:.1f} | {rate:,.0f} | {last} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    numbers = {"size": 32, "channels": 3, "batch": 128, "rounds": 25, "steps": 1}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--network", default="resnet8")
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    result = measure(options)
    print(table(result))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
