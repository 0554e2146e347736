"""Times a training step of this project and of PyTorch in turns, and says how far the floor is.

  python experiments/speed/benchmark.py --out=experiments/results/speed_cpu \
      [--networks=resnet32,resnet32] [--method=afd] [--batch=128] [--rounds=7] [--steps=3] \
      [--torch-python=VENV/bin/python] [--torch-variants="two forwards,one forward AVX2"]

Each contestant is a process of its own (workers beside this file), so PyTorch may live in another
environment. They take turns; each turn is a few steps on a batch that lies on the device already,
without augmentation. Images per second are medians over the turns, with the lowest and highest;
the first step (compilation, warm-up) is reported apart. Runs on whatever device each finds. On a
GPU, ask for "compiled channels-last" among the PyTorch variants, too: its quickest form there.

The floor is the time that the step's multiplications would take at the speed of a large matrix
product, or its least traffic (the whole state read and written, the images read) at the speed of a
copy, measured in the same run: whichever is longer.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
from typing import Any

FOLDER = pathlib.Path(__file__).parent


class Worker:
    """A process that trains when asked to, and reports in JSON lines."""

    def __init__(self, name: str, python: str, script: str, variant: str, task: dict[str, Any]):
        self.name = name
        command = [python, str(FOLDER / script), json.dumps({**task, "variant": variant})]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.facts = self._answer()

    def ask(self, request: str) -> dict[str, Any]:
        """Sends a line and waits for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with code {self._process.wait()}")
        return json.loads(line)

    def close(self) -> dict[str, Any]:
        """Asks for the last facts and ends the process."""
        facts = self.ask("end")
        self._process.wait()
        return facts


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs all contestants in turns."""
    networks = options.networks.split(",")
    task = {"networks": networks, "method": options.method, "batch": options.batch}
    workers = [Worker("afd_jax", sys.executable, "jax_worker.py", "jit", task)]
    if options.torch_python:
        workers += [
            Worker(f"PyTorch, {variant}", options.torch_python, "torch_worker.py", variant, task)
            for variant in options.torch_variants.split(",")
        ]
    seconds: dict[str, list[float]] = {worker.name: [] for worker in workers}
    for turn in range(options.rounds):
        for worker in workers:
            taken = worker.ask(f"run {options.steps}")["seconds"] / options.steps
            seconds[worker.name].append(taken)
            print(f"turn {turn + 1}: {worker.name} {1e3 * taken:.0f} ms", file=sys.stderr)
    ceilings = workers[0].ask("ceilings")
    results = {}
    for worker in workers:
        taken = seconds[worker.name]
        rates = [options.batch / t for t in taken]
        results[worker.name] = {
            **worker.facts,
            **worker.close(),
            "images_per_second": statistics.median(rates),
            "lowest": min(rates),
            "highest": max(rates),
            "step_seconds": taken,
        }
    ours = results["afd_jax"]
    floor = max(ours["flops"] / ceilings["flops"], ours["least_bytes"] / ceilings["bytes"])
    step = statistics.median(ours["step_seconds"])
    return {
        "task": task,
        "contestants": results,
        "ratios": {
            name: ours["images_per_second"] / result["images_per_second"]
            for name, result in results.items()
        },
        "ceilings_per_second": ceilings,
        "floor_seconds": floor,
        "share_of_floor": floor / step,
    }


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table."""
    lines = [
        "| | images/s (lowest to highest) | first step, s | peak memory, MiB | afd_jax is |",
        "|---|---|---|---|---|",
    ]
    for name, r in result["contestants"].items():
        lines.append(
            f"| {name} | {r['images_per_second']:.1f} ({r['lowest']:.1f} to {r['highest']:.1f}) "
            f"| {r['first_step_seconds']:.1f} | {r['peak_bytes'] / 2**20:.0f} "
            f"| {result['ratios'][name]:.2f} x |"
        )
    share = 100 * result["share_of_floor"]
    return "\n".join([*lines, "", f"afd_jax reaches {share:.0f} % of the floor's speed."])


def plot(result: dict[str, Any], file: pathlib.Path) -> None:
    """Bars of images per second with their range."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = list(result["contestants"])
    rates = [result["contestants"][n]["images_per_second"] for n in names]
    spans = [
        [r - result["contestants"][n]["lowest"] for n, r in zip(names, rates)],
        [result["contestants"][n]["highest"] - r for n, r in zip(names, rates)],
    ]
    figure, axis = plt.subplots(figsize=(7, 0.5 * len(names) + 1), layout="constrained")
    axis.barh(names, rates, xerr=spans, color="C0", ecolor="0.3", capsize=3)
    axis.invert_yaxis()
    axis.set_xlabel("images per second, median and range of the turns")
    figure.savefig(file, dpi=120)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--networks", default="resnet32,resnet32")
    parser.add_argument("--method", default="afd", choices=("afd", "dml", "independent"))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--torch-python", help="an interpreter that has PyTorch")
    parser.add_argument(
        "--torch-variants", default="two forwards,one forward,two forwards channels-last"
    )
    options = parser.parse_args()
    result = measure(options)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    plot(result, options.out.with_name(f"{options.out.name}.png"))
    text = json.dumps(result, indent=1)
    options.out.with_name(f"{options.out.name}.json").write_text(text + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
