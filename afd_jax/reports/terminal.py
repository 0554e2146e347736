"""What a person sees of a run while it goes on, and at its end."""

import datetime
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from afd_jax.reports.facts import OTHERS, Facts, with_role

Record = Mapping[str, Any]

_TICK = 1.0  # seconds between two looks at the clock while the first step compiles
_FIRST_LINE = 30.0  # seconds of compiling after which plain lines say so; then 60, 120, ...


class Progress:
    """A progress bar on a terminal, plain lines elsewhere.

    Args:
      facts: as from `facts.graph_facts`.
      total_steps: of the run.
      batch_size: images a step, over all devices and seeds.
      start: first step of this session.
      shown: print at all.
    """

    def __init__(self, facts: Facts, *, total_steps: int, batch_size: int, start: int, shown: bool):
        self._facts, self._total, self._size = facts, total_steps, batch_size
        self._lines = shown and not sys.stderr.isatty()
        self._shown = shown
        from tqdm import tqdm  # of the extra "train"

        self._write = tqdm.write
        self._bar = tqdm(
            total=total_steps,
            initial=start,
            unit="step",
            disable=not shown or self._lines,
            dynamic_ncols=True,
        )
        self._compiled = threading.Event()
        self._ticker: threading.Thread | None = None
        if self._lines:
            self.say("compiling the training step ...")

    def __enter__(self) -> "Progress":
        if self._shown:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.compiled()
        self._bar.close()

    def _tick(self) -> None:
        """Shows for how long the first step has been compiling, until it is done."""
        start, next_line, seconds = time.monotonic(), _FIRST_LINE, 0.0
        while True:
            if not self._lines:
                self._bar.set_postfix_str(f"compiling ... {seconds:.0f} s")
            elif seconds >= next_line:
                self.say(f"compiling ... {seconds:.0f} s")
                next_line *= 2
            if self._compiled.wait(_TICK):
                break
            seconds = time.monotonic() - start
        seconds = time.monotonic() - start
        if not self._lines:
            self._bar.set_postfix_str(f"compiled in {seconds:.0f} s")

    def compiled(self) -> None:
        """The first step is done."""
        self._compiled.set()
        if self._ticker is not None:
            self._ticker.join()
            self._ticker = None

    def trained(self, record: Record) -> None:
        """Shows a training record."""
        students = with_role(self._facts, "student")
        loss = "/".join(f"{_total_loss(record, name):.3f}" for name in students)
        accuracy = "/".join(f"{100 * record[f'{name}/accuracy']:.1f}" for name in students)
        rate = record.get("images_per_second")
        speed = f", {rate:.0f} img/s" if rate else ""
        self._bar.update(record["step"] - self._bar.n)
        self._bar.set_postfix_str(f"loss {loss}, acc {accuracy} %{speed}")
        if self._lines:
            print(
                f"step {record['step']}/{self._total}  loss {loss}  acc {accuracy} %"
                f"{speed}, ETA {self._left(record)}",
                flush=True,
            )

    def _left(self, record: Record) -> str:
        images = (self._total - record["step"]) * self._size
        rate = record.get("images_per_second")
        return str(datetime.timedelta(seconds=round(images / rate))) if rate else "unknown"

    def evaluated(self, record: Record) -> None:
        """Shows an evaluation record."""
        accuracy = {name: f"{100 * a:.2f}" for name, a in record["accuracy"].items()}

        def of(*roles: str) -> list[str]:
            return [n for n in with_role(self._facts, *roles) if n in accuracy]

        students, twins, others = of("student"), of("twin"), of(*OTHERS)
        line = f"epoch {record['epoch']:.4g}  {record['kind']} accuracy "
        line += "/".join(accuracy[name] for name in students) + " %"
        if twins:
            line += f", alone {'/'.join(accuracy[name] for name in twins)} %"
        if len(others) > 2:
            line += f", others {'/'.join(accuracy[name] for name in others)} %"
        else:
            line += "".join(f", {name} {accuracy[name]} %" for name in others)
        if len(students) > 1:
            line += f", ensemble {100 * record['ensemble_accuracy']:.2f} %"
        if divergence := record.get("divergence"):
            line += f", divergence {'/'.join(f'{own:.4g}' for own in divergence.values())}"
        self.say(line)

    def say(self, line: str) -> None:
        """Prints a line beside the bar."""
        if self._shown:
            self._write(line)
            sys.stdout.flush()


def _total_loss(record: Record, name: str) -> float:
    """Of what trains the network: a discriminator's losses have no gradient at its outputs."""
    prefix = f"{name}/loss/"
    terms = [key.removeprefix(prefix) for key in record if key.startswith(prefix)]
    own = [term for term in terms if f"{name}/output_gradient_norm/{term}" in record]
    return sum(record[prefix + term] for term in own)


def table(summary: Record) -> str:
    """The summary's accuracies, a line per network; with twins, what learning together brought."""
    students, others = summary["networks"], summary["others"]
    twins = {twin["of"]: twin for twin in summary["twins"]}
    # Of runs by an earlier release there are none.
    differences = summary.get("differences", {})
    before = [
        {**network, "name": f"generation {network['generation']}"}
        for network in summary.get("generations", [])
    ]
    every = [*students, *others, *before]
    width = max(len(name) for name in ["ensemble", *(n["name"] for n in every)]) + 2
    seeds = summary.get("seeds", [])
    cells = 20 if seeds else 16
    head = f"{'network':{width}}{'parameters':>12}{'test accuracy':>{cells}}"
    if twins:
        head += f"{'the same alone':>{cells}}"
    if differences:
        head += "   difference, points" + (" (95 % interval)" if seeds else "")
    lines = [head]
    for network in every:
        line = f"{network['name']:{width}}{network['parameters']:>12,}"
        line += _percent(network, "test_accuracy", cells)
        if twin := twins.get(network["name"]):
            line += _percent(twin, "test_accuracy", cells) + _points(differences, network["name"])
        lines.append(line)
    for name in ("mean", "ensemble") if len(students) > 1 else ():
        field = f"{name}_test_accuracy"
        if name == "mean" and not (twins and field in summary):
            continue
        line = f"{name:{width}}{'':12}{_percent(summary, field, cells)}"
        if f"twin_{field}" in summary:
            line += _percent(summary, f"twin_{field}", cells) + _points(differences, name)
        lines.append(line)
    if seeds:
        lines.append(f"mean and deviation of the seeds {', '.join(map(str, seeds))}")
    return "\n".join(lines)


def _percent(record: Record, name: str, width: int) -> str:
    deviation = record.get(f"{name}_deviation")
    after = "" if deviation is None else f" ± {100 * deviation:.2f}"
    return f"{100 * record[name]:.2f}{after} %".rjust(width)


def _points(differences: Mapping[str, Record], name: str) -> str:
    if name not in differences:
        return ""
    own = {end: f"{100 * value:+.2f}" for end, value in differences[name].items()}
    text = f"   {own['mean']}"
    return text + (f" ({own['low']} to {own['high']})" if "low" in own else "")
