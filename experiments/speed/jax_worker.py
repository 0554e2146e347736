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

from afd_jax.engine.build import make_cohort
from afd_jax.graph import make_graph
from afd_jax.engine.init import init_state
from afd_jax.cpu.huge_pages import use_huge_pages
from afd_jax.methods import AFD, DML, Independent
from afd_jax.networks import create
from afd_jax.networks.as_written import as_written
from afd_jax.engine.optimizers import adam, sgd
from afd_jax.engine.devices import make_parallel
from afd_jax.reports.report import commit
from afd_jax.engine.step import train_step

METHODS = {"afd": AFD, "dml": DML, "independent": Independent}


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
    networks = [create(name, 100) for name in task["networks"]]
    shape = {"afd": "cyclic", "dml": "all_pairs", "independent": "none"}[task["method"]]
    slow = adam(2e-5, weight_decay=0.1)
    cohort = make_cohort(
        networks,
        METHODS[task["method"]](make_graph(shape, len(networks))),
        {
            "logit": sgd(0.1, momentum=0.9, weight_decay=1e-4),
            "feature": slow,
            "discriminator": slow,
        },
        image_shape=(32, 32, 3),
        classes=100,
    )
    size = task["batch"]
    key = jax.random.key(0)
    batch = {
        "image": jax.random.normal(key, (size, 32, 32, 3)),
        "label": jax.random.randint(key, (size,), 0, 100),
        "index": jnp.arange(size),
    }
    state = jax.block_until_ready(init_state(cohort, key))
    start = time.perf_counter()
    step = make_parallel("jit", 1).compile(functools.partial(train_step, cohort), donate=True)
    compiled = step.lower(state, batch).compile()
    compile_seconds = time.perf_counter() - start
    state, _ = jax.block_until_ready(compiled(state, batch))
    first_step_seconds = time.perf_counter() - start
    with as_written():
        whole = jax.jit(functools.partial(train_step, cohort)).lower(state, batch)
    # The fewest bytes: the state read and written, the images read.
    least = 2 * sum(x.nbytes for x in jax.tree.leaves(state)) + batch["image"].nbytes
    facts = {
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {platform.machine()}",
        "versions": {"jax": jax.__version__, "python": platform.python_version()},
        "commit": commit(),
        "compile_seconds": compile_seconds,
        "first_step_seconds": first_step_seconds,
        "flops": whole.cost_analysis()["flops"],
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
