"""Measures how fast images are read from disk, decoded and augmented, and who waits for whom.

  python experiments/speed/input_pipeline.py --data-dir=FOLDER \
      [--name=imagenet2012] [--size=224] [--workers=1,2] [--seconds=10] [--step-ms=100,200] \
      [--out=experiments/results/input_pipeline.json]

Three measurements, without any accelerator: a bare loop of PIL in one process; the stream with so
many worker processes, from its first batch on; and the time that a step waits for its batch when
the step itself takes so long (it sleeps, as a processor does that waits for an accelerator). There
the batch is what the workers make in 3/4 of a step. A small sample is read many times over, so
its files come from the system's cache.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import time
from typing import Any

import jax
import numpy as np

from afd_jax.data.crops import augmented
from afd_jax.data.prefetch import prefetch_to_device
from afd_jax.data.sources import load_streamed
from afd_jax.data.streaming import Streamed, train_stream
from afd_jax.reports.summary import commit

BATCH = 64
FOREVER = 10**6
LOAD = 0.75


def bare(data: Streamed, seconds: float) -> dict[str, Any]:
    """Decodes and augments in a plain loop, one image after another."""
    done, start = 0, time.perf_counter()
    while (taken := time.perf_counter() - start) < seconds:
        draw = np.random.default_rng(done)
        data.read(done % len(data), lambda x, draw=draw: augmented(x, data.image_size, draw))
        done += 1
    return {"what": "plain loop", "cores": 1, "images_per_second": done / taken}


def streaming(data: Streamed, seconds: float) -> dict[str, Any]:
    """Takes batches as fast as they come."""
    start = time.perf_counter()
    stream = train_stream(data, BATCH, seed=0, start_step=0, end_step=FOREVER)
    next(stream)
    first = time.perf_counter() - start
    done, start = 0, time.perf_counter()
    while (taken := time.perf_counter() - start) < seconds:
        done += len(next(stream)["label"])
    stream.close()
    return {
        "what": f"stream, {data.workers} workers",
        "cores": data.workers,
        "images_per_second": done / taken,
        "first_batch_seconds": first,
    }


def waiting(data: Streamed, rate: float, step: float, seconds: float) -> dict[str, Any]:
    """Takes a batch, sleeps for the length of a step, and so on."""
    batch = min(int(LOAD * rate * step), len(data))
    stream = train_stream(data, batch, seed=0, start_step=0, end_step=FOREVER)
    batches = prefetch_to_device(stream, jax.device_put)
    waits = []
    next(batches)
    for _ in range(round(seconds / step)):
        time.sleep(step)
        start = time.perf_counter()
        next(batches)
        waits.append(1e3 * (time.perf_counter() - start))
    batches.close()
    return {
        "workers": data.workers,
        "step_ms": 1e3 * step,
        "batch": batch,
        "steps": len(waits),
        "median_wait_ms": statistics.median(waits),
        "mean_wait_ms": statistics.mean(waits),
        "longest_wait_ms": max(waits),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs one measurement after another."""
    splits = load_streamed(options.name, data_dir=options.data_dir, image_size=options.size)
    train: Any = splits.train
    rates, waits = [bare(train, options.seconds)], []
    for workers in map(int, options.workers.split(",")):
        data = dataclasses.replace(train, workers=workers)
        rates.append(streaming(data, options.seconds))
        for step in options.step_ms.split(","):
            rate = rates[-1]["images_per_second"]
            waits.append(waiting(data, rate, float(step) / 1e3, options.seconds))
    packages = ("grain", "pillow", "numpy", "jax", "tensorflow-datasets")
    return {
        "data": f"{len(train)} images of {options.name}, to {options.size}x{options.size}",
        "device": f"{processor()}, {os.cpu_count()} cores",
        "load": os.getloadavg(),
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in packages},
        },
        "rates": rates,
        "waits": waits,
    }


def processor() -> str:
    """Its name, where the system tells."""
    file = pathlib.Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def table(result: dict[str, Any]) -> str:
    """The result as Markdown tables."""
    lines = ["| | images/s | per core | first batch, s |", "|---|---|---|---|"]
    for r in result["rates"]:
        first = f"{r['first_batch_seconds']:.1f}" if "first_batch_seconds" in r else ""
        rate = r["images_per_second"]
        lines.append(f"| {r['what']} | {rate:.0f} | {rate / max(r['cores'], 1):.0f} | {first} |")
    lines += ["", "| workers | step, ms | batch | median wait, ms | mean | longest |"]
    lines.append("|---|---|---|---|---|---|")
    for w in result["waits"]:
        times = (w[f"{kind}_wait_ms"] for kind in ("median", "mean", "longest"))
        cells = [w["workers"], f"{w['step_ms']:.0f}", w["batch"], *(f"{t:.2f}" for t in times)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--name", default="imagenet2012")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--step-ms", default="100,200")
    parser.add_argument("--out", type=pathlib.Path)
    options = parser.parse_args()
    result = measure(options)
    print(table(result))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
