"""What a step costs as the number of networks, their depth, the batch and the devices grow.

  python experiments/speed/cost_model.py --out=experiments/results/cost_model [--network=resnet32]

Per row: operations of convolutions and matrix products (`reports.flops`), memory as the compiler
plans it, and (unless --no-times) the median time of some steps on this machine. Over devices: the
collective operations of the compiled program and the bytes that they reduce, on eight fake devices,
and from them an estimate for a pod: what each step sends, against how long it computes. A figure is
drawn beside the JSON.
"""

import argparse
import functools
import json
import math
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

import jax
import jax.numpy as jnp

import afd_jax as afd
from afd_jax.engine.devices import make_devices
from afd_jax.engine.init import init_state, state_shapes
from afd_jax.engine.step import train_step
from afd_jax.reports.flops import count_flops
from afd_jax.reports.summary import commit

BYTES = {"f32": 4, "bf16": 2, "f64": 8, "s32": 4, "u32": 4, "pred": 1}
# Of one TPU v4 chip (Jouppi et al., "TPU v4", ISCA 2023): bfloat16 operations, and bytes between
# neighbours, per second. What a step reaches of the first is assumed.
POD = {"flops": 275e12, "link_bytes": 50e9, "assumed_share_of_flops": 0.3}


def plan_of(method, shape, network, count):
    method, size = afd.methods.make(method, {}), {"image_shape": (32, 32, 3), "classes": 100}
    return afd.Cohort([network] * count, method, graph=shape, **size).plan


def step_of(plan):
    """As in all steps but those that are logged."""
    return functools.partial(train_step, plan, detailed=False)


def batch_of(size):
    key = jax.random.key(0)
    return {
        "image": jax.random.normal(key, (size, 32, 32, 3)),
        "label": jax.random.randint(key, (size,), 0, 100),
        "index": jnp.arange(size),
    }


def row(method, shape, network, count, size, steps):
    """Costs of one step."""
    plan, batch = plan_of(method, shape, network, count), batch_of(size)
    step, shapes = make_devices("jit", 1).compile(step_of(plan), donate=True), state_shapes(plan)
    start = time.perf_counter()
    lowered = step.lower(shapes, batch)
    middle = time.perf_counter()
    compiled = lowered.compile()
    end = time.perf_counter()
    memory = compiled.memory_analysis()
    result = {
        "method": method,
        "graph": shape,
        "network": network,
        "networks": count,
        "batch": size,
        "flops_per_network_and_image": count_flops(step_of(plan), shapes, batch) / count / size,
        "state_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "trace_seconds": middle - start,
        "compile_seconds": end - middle,
    }
    if steps:
        state = init_state(plan, jax.random.key(0))
        times = []
        for _ in range(steps + 1):
            start = time.perf_counter()
            state, _ = jax.block_until_ready(compiled(state, batch))
            times.append(time.perf_counter() - start)
        result["step_seconds"] = statistics.median(times[1:])
    print(json.dumps(result), flush=True)
    return result


def collectives(mode, network, count, size, devices):
    """Number and bytes of the reductions in the program of one device."""
    chosen = make_devices(mode, devices)
    plan = plan_of("afd", "cyclic", network, count)
    step = chosen.compile(step_of(chosen.prepare(plan)), donate=True)
    state = chosen.put_state(init_state(plan, jax.random.key(0)))
    text = step.lower(state, chosen.put_batch(batch_of(size))).compile().as_text()
    found = re.findall(r"= (\S.*?) (all-reduce|all-gather|reduce-scatter)(?:-start)?\(", text)
    sizes = [
        BYTES[kind] * math.prod(int(n) for n in shape.split(",") if n)
        for shapes, _ in found
        for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", shapes)
    ]
    return {
        "mode": mode,
        "devices": devices,
        "batch": size,
        "operations": len(found),
        "bytes": sum(sizes),
        "large_operations": sum(s > 4096 for s in sizes),
        "large_bytes": sum(s for s in sizes if s > 4096),
    }


def over_devices(network, size):
    """`collectives` in a process that has eight fake devices."""
    command = [sys.executable, __file__, "--out=-", f"--network={network}", f"--batch={size}"]
    flags = "--xla_force_host_platform_device_count=8"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    output = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    return json.loads(output)


def pod(flops, reduced_bytes, per_chip):
    """Estimated efficiency of data parallelism on a ring: computing / (computing + reducing)."""
    compute = per_chip * flops / (POD["flops"] * POD["assumed_share_of_flops"])
    rows = []
    for chips in (8, 32, 128):
        reduce = 2 * (chips - 1) / chips * reduced_bytes / POD["link_bytes"]
        rows.append(
            {
                "chips": chips,
                "images_per_chip": per_chip,
                "compute_seconds": compute,
                "reduce_seconds": reduce,
                "efficiency": compute / (compute + reduce),
            }
        )
    return rows


def plot(result, network, size, file):
    """Time (or operations, without times), memory and a pod's efficiency."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    def rows(method, shape, **fixed):
        wanted = {"method": method, "graph": shape, **fixed}
        return [r for r in result["rows"] if wanted.items() <= r.items()]

    timed = "step_seconds" in result["rows"][0]
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    for label, method, shape in (
        ("AFD, cycle", "afd", "cyclic"),
        ("AFD, all pairs", "afd", "all_pairs"),
        ("DML", "dml", "all_pairs"),
    ):
        own = sorted(rows(method, shape, network=network, batch=size), key=lambda r: r["networks"])
        counts = [r["networks"] for r in own]
        costs = [
            r["step_seconds"] if timed else r["flops_per_network_and_image"] * r["networks"] / 1e6
            for r in own
        ]
        axes[0].plot(counts, costs, "o-", label=label)
        axes[1].plot(counts, [r["temporary_bytes"] / 1e6 for r in own], "o-", label=label)
    axes[0].set_ylabel("seconds a step" if timed else "MFLOPs an image")
    axes[1].set_ylabel("memory of a step, MB")
    for axis in axes[:2]:
        axis.set_xlabel(f"networks ({network}, batch {size})")
        axis.set_ylim(bottom=0)
    axes[0].legend()
    own = sorted(rows("afd", "cyclic", network=network, networks=2), key=lambda r: r["batch"])
    axes[2].plot(
        [r["batch"] for r in own],
        [r["batch"] / r["step_seconds"] if timed else r["temporary_bytes"] / 1e6 for r in own],
        "o-",
    )
    axes[2].set_xlabel(f"batch (AFD, two {network})")
    axes[2].set_ylabel("images a second" if timed else "memory of a step, MB")
    axes[2].set_ylim(0, 1.1 * axes[2].get_ylim()[1])
    for images in sorted({r["images_per_chip"] for r in result["pod"]}):
        own = [r for r in result["pod"] if r["images_per_chip"] == images]
        axes[3].plot(
            [r["chips"] for r in own],
            [r["efficiency"] for r in own],
            "o-",
            label=f"{images} images a chip",
        )
    axes[3].set_xscale("log", base=2)
    axes[3].set_xlabel("TPU v4 chips (an estimate)")
    axes[3].set_ylabel("share of linear scaling")
    axes[3].set_ylim(0, 1.02)
    axes[3].legend()
    figure.savefig(file, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=pathlib.Path, help="without .json")
    parser.add_argument("--network", default="resnet8")
    parser.add_argument("--depths", default="resnet20,resnet32,resnet110", help="others, in pairs")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--no-times", action="store_true")
    options = parser.parse_args()
    if str(options.out) == "-":
        pairs = [(mode, devices) for mode in ("jit", "pmap") for devices in (2, 4, 8)]
        found = [collectives(m, options.network, 2, options.batch, d) for m, d in pairs]
        print(json.dumps(found))
        return
    steps, size, network = 0 if options.no_times else options.steps, options.batch, options.network
    rows = [row("afd", "cyclic", network, k, size, steps) for k in (2, 3, 4, 8)]
    rows += [row("afd", "all_pairs", network, k, size, steps) for k in (3, 4)]
    rows += [row("dml", "all_pairs", network, 2, size, steps)]
    for deeper in options.depths.split(","):
        rows += [row("afd", "cyclic", deeper, 2, size, steps)]
        rows += [row("dml", "all_pairs", deeper, 2, size, steps)]
    rows += [row("afd", "cyclic", network, 2, b, steps) for b in (32, 64, 256)]
    over = over_devices(network, size)
    pair = rows[0]
    flops = pair["flops_per_network_and_image"] * pair["networks"]
    result = {
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores",
        "versions": {"jax": jax.__version__},
        "commit": commit(),
        "rows": rows,
        "collectives": over,
        "pod_assumptions": POD,
        "pod": [r for b in (16, 128) for r in pod(flops, over[-1]["bytes"], b)],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    plot(result, options.network, size, options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
