"""This project's training step, run on request; `benchmark.py` starts it."""

import functools
import json
import os
import platform
import resource
import sys
import time

import jax
import jax.numpy as jnp

import afd_jax as afd
from afd_jax.engine.devices import make_devices
from afd_jax.engine.step import train_step
from afd_jax.reports.flops import count_flops
from afd_jax.reports.summary import commit
from afd_jax.speedups import use_huge_pages


def best(function, *args, repeats=10):
    """Seconds of the quickest call after one to warm up."""
    jax.block_until_ready(function(*args))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - start)
    return min(times)


def ceilings():
    """What the device does at best: operations per second, and bytes read plus written."""
    n = 2048 if jax.default_backend() == "cpu" else 8192
    a = jnp.ones((n, n), jnp.float32)
    product = best(jax.jit(jnp.matmul), a, a)
    x = jnp.ones((2**26,), jnp.float32)
    copy = best(jax.jit(lambda x: x + 1), x)
    return {"flops": 2 * n**3 / product, "bytes": 2 * x.nbytes / copy}


def peak_bytes():
    statistics = jax.devices()[0].memory_stats()
    if statistics and "peak_bytes_in_use" in statistics:
        return statistics["peak_bytes_in_use"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main():
    use_huge_pages()
    task = json.loads(sys.argv[1])
    method = afd.methods.make(task["method"], {})
    cohort = afd.Cohort(task["networks"], method, image_shape=(32, 32, 3), classes=100)
    # As in all steps but those that are logged.
    update = functools.partial(train_step, cohort.plan, detailed=False)
    size = task["batch"]
    key = jax.random.key(0)
    batch = {
        "image": jax.random.normal(key, (size, 32, 32, 3)),
        "label": jax.random.randint(key, (size,), 0, 100),
        "index": jnp.arange(size),
    }
    state = jax.block_until_ready(cohort.init(key))
    start = time.perf_counter()
    step = make_devices("jit", 1).compile(update, donate=True)
    compiled = step.lower(state, batch).compile()
    compile_seconds = time.perf_counter() - start
    state, _ = jax.block_until_ready(compiled(state, batch))
    first_step_seconds = time.perf_counter() - start
    # The fewest bytes: the state read and written, the images read.
    least = 2 * sum(x.nbytes for x in jax.tree.leaves(state)) + batch["image"].nbytes
    facts = {
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {platform.machine()}",
        "versions": {"jax": jax.__version__, "python": platform.python_version()},
        "commit": commit(),
        "compile_seconds": compile_seconds,
        "first_step_seconds": first_step_seconds,
        "flops": count_flops(update, state, batch),
        "least_bytes": least,
    }
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        request, *rest = line.split()
        if request == "run":
            start = time.perf_counter()
            for _ in range(int(rest[0])):
                state, metrics = compiled(state, batch)
            jax.block_until_ready((state, metrics))
            print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
        elif request == "ceilings":
            print(json.dumps(ceilings()), flush=True)
        else:
            print(json.dumps({"peak_bytes": peak_bytes()}), flush=True)
            return


if __name__ == "__main__":
    main()
