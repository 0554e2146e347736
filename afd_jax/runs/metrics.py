"""Measurements as JSON lines, and the sums behind an evaluation."""

import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from afd_jax import losses
from afd_jax.errors import Diverged, naming

Record = dict[str, Any]


class MetricsLog:
    """A file of JSON objects, one a line, each with "step" and "kind".

    Only process 0 of a multi-host run writes.

    Args:
      path: of the file.
      step: the step to continue from; lines after it, of a run that was cut off, are dropped.
    """

    def __init__(self, path: pathlib.Path, step: int):
        self.records = [r for r in read_metrics(path) if r["step"] <= step]
        self._path = path if jax.process_index() == 0 else None
        if self._path:
            # Written aside and renamed, so that being cut off here loses nothing.
            aside = path.with_suffix(".tmp")
            with naming(aside):
                aside.write_text("".join(json.dumps(r) + "\n" for r in self.records))
            aside.replace(path)

    def write(self, record: Record) -> None:
        """Appends one record.

        Raises:
          Diverged: if a value is infinite or not a number.
        """
        require_finite(record["step"], record)
        self.records.append(record)
        if self._path:
            with naming(self._path), self._path.open("a") as file:
                file.write(json.dumps(record, allow_nan=False) + "\n")


def require_finite(step: int, record: Record) -> None:
    """Raises Diverged, with the name, if a value is infinite or not a number."""
    for name, value in record.items():
        values = jax.tree.leaves(value)
        if not all(math.isfinite(v) for v in values if isinstance(v, float)):
            words = "a smaller learning rate, in another --workdir, may help"
            raise Diverged(f"step {step}: {name} = {value}; {words}")


def read_metrics(path: pathlib.Path) -> Iterator[Record]:
    """Yields the records of a file; none if it is not there, and not what a crash has torn."""
    if not path.is_file():
        return
    for line in path.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and {"step", "kind", "epoch"} <= {*record}:
            yield record


def set_metrics_aside(path: pathlib.Path) -> pathlib.Path | None:
    """Moves the metrics of a run that has lost its checkpoints out of the way, if there are any.

    Returns:
      Where they are now.
    """
    if jax.process_index() or not any(record["step"] for record in read_metrics(path)):
        return None
    count = len(list(path.parent.glob(f"{path.stem}_before*")))
    aside = path.with_name(f"{path.stem}_before_{count + 1}{path.suffix}")
    path.rename(aside)
    return aside


class Window:
    """Sums of metrics since the last log line, for each seed.

    They are part of a checkpoint's notes, so that a line means the same whether a run was
    interrupted in the middle of it or not.

    Args:
      count: number of seeds.
      notes: as from `notes`, to continue from.
    """

    def __init__(self, count: int, notes: Mapping[str, Any] | None = None):
        self._count = count
        self._waiting: list[Any] = []
        self.steps = 0
        self._sums: list[dict[str, float]] = [{} for _ in range(count)]
        if notes:
            self.steps, self._sums = notes["steps"], [dict(own) for own in notes["sums"]]

    def add(self, metrics: Any) -> None:
        """Takes what one call returned: by node, values [steps], or [steps, seeds] for several."""
        self._waiting.append(metrics)

    def fold(self) -> int:
        """Adds up what waits, which waits for the device; returns the number of its steps."""
        steps = 0
        for call in jax.device_get(self._waiting):
            values = flatten(call)
            length = len(next(iter(values.values())))
            for step in range(length):  # one by one, so that any split gives the same sum
                for s, sums in enumerate(self._sums):
                    for name, value in values.items():
                        own = value[step] if self._count == 1 else value[step, s]
                        sums[name] = sums.get(name, 0.0) + float(own)
            steps += length
        self._waiting = []
        self.steps += steps
        return steps

    def means(self) -> list[Record]:
        """Of each seed, and begins anew; what is measured once a window is taken as it is."""
        means = [
            {name: v if MEASURED_ONCE in name else v / self.steps for name, v in sums.items()}
            for sums in self._sums
        ]
        self.steps, self._sums = 0, [{} for _ in range(self._count)]
        return means

    def require_finite(self, step: int) -> None:
        """Raises Diverged if anything is not finite up to this step."""
        for sums in self._sums:
            require_finite(step, sums)

    def notes(self) -> dict[str, Any]:
        """What is in it, as JSON values of their own: they are written while training goes on."""
        return {"steps": self.steps, "sums": [dict(own) for own in self._sums]}


MEASURED_ONCE = "/output_gradient_norm/"
"""In the names of metrics that are measured in the last step before a line, and are 0 else."""


def flatten(per_node: Mapping[str, Mapping[str, Any]]) -> Record:
    """One flat dict out of one per node: {"resnet8/accuracy": 0.5, ...}.

    >>> flatten({"a": {"accuracy": 0.5}, "b": {"accuracy": 0.25}})
    {'a/accuracy': 0.5, 'b/accuracy': 0.25}
    """
    return {f"{node}/{name}": v for node, own in per_node.items() for name, v in own.items()}


def evaluation(total: Mapping[str, Any]) -> Record:
    """Turns the sums of `evaluate.eval_step` over a whole set into means over all examples.

    Args:
      total: of one seed.

    Returns:
      "accuracy" and "cross_entropy" by node (fractions and nats), and where it was measured
      "divergence" from its sources (nats); of the students together
      "ensemble_accuracy", of their twins "twin_ensemble_accuracy"; "similarity" of the last maps by
      pair of nodes, {"a, b": {"cka": 0.9, ...}}: "cka", and, where the maps have one shape,
      "cosine", "l1" and "l2".
    """
    count = total["count"]
    fields = {"accuracy": "correct", "cross_entropy": "cross_entropy", "divergence": "divergence"}
    record: Record = {
        name: {node: float(value / count) for node, value in total[field].items()}
        for name, field in fields.items()
        if field in total
    }
    for name in ("ensemble", "twin_ensemble"):
        if f"{name}_correct" in total:
            record[f"{name}_accuracy"] = float(total[f"{name}_correct"] / count)
    for pair, sums in total.get("similarity", {}).items():
        means = {name: float(value / count) for name, value in sums.items() if name != "hsic"}
        size = max(sums["hsic"][1:]) or 1  # sums of many batches might not fit into float32
        cka = float(losses.cka_ratio(*(value / size for value in sums["hsic"])))
        record.setdefault("similarity", {})[", ".join(pair)] = {"cka": cka, **means}
    return record
