"""Measurements as JSON lines, and the sums behind an evaluation."""

import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from afd_jax.engine import seeds

Record = dict[str, Any]


class Diverged(Exception):
    """A measurement is not finite any more: going on would only cost time."""


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
            aside.write_text("".join(json.dumps(r) + "\n" for r in self.records))
            aside.replace(path)

    def write(self, record: Record) -> None:
        """Appends one record.

        Raises:
          Diverged: if a value is infinite or not a number.
        """
        for name, value in record.items():
            values = value if isinstance(value, list) else [value]
            if not all(math.isfinite(v) for v in values if isinstance(v, float)):
                raise Diverged(
                    f"step {record['step']}: {name} = {value}; a smaller learning rate, in another "
                    "--workdir, may help"
                )
        self.records.append(record)
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps(record, allow_nan=False) + "\n")


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


def flatten(per_node: Sequence[Mapping[str, Any]]) -> Record:
    """One flat dict out of one per node: {"0/accuracy": 0.5, ...}.

    >>> flatten([{"accuracy": 0.5}, {"accuracy": 0.25}])
    {'0/accuracy': 0.5, '1/accuracy': 0.25}
    """
    return {f"{k}/{name}": v for k, node in enumerate(per_node) for name, v in node.items()}


def mean_of(calls: Sequence[Sequence[Mapping[str, Any]]], count: int) -> list[Record]:
    """Averages metrics over calls and their steps, fetched from the device together.

    Args:
      calls: of each call, a dict per node with values [steps], or [steps, seeds] for several.
      count: number of seeds.

    Returns:
      What `flatten` makes of the nodes, for each seed.
    """
    fetched = [flatten(call) for call in jax.device_get(list(calls))]
    means = {
        name: np.mean(np.concatenate([call[name] for call in fetched]), 0, np.float64)
        for name in fetched[0]
    }
    return [jax.tree.map(float, own) for own in seeds.split(means, count)]


def mean_record(records: Sequence[Record]) -> Record:
    """One record for those of several seeds, numbers and lists of numbers averaged."""

    def mean(name: str) -> Any:
        values = [record[name] for record in records]
        if isinstance(values[0], list):
            return np.mean(values, axis=0).tolist()
        return values[0] if isinstance(values[0], str | int) else float(np.mean(values))

    return {name: mean(name) for name in records[0] if name != "seed"}


def evaluation(total: Mapping[str, Any]) -> Record:
    """Turns the sums of `evaluate.eval_step` over a whole set into means over all examples.

    Args:
      total: of one seed.

    Returns:
      "accuracy" and "cross_entropy" (lists, one per node, fractions and nats) and
      "ensemble_accuracy".
    """
    count = total["count"]
    return {
        "accuracy": (total["correct"] / count).tolist(),
        "cross_entropy": (total["cross_entropy"] / count).tolist(),
        "ensemble_accuracy": float(total["ensemble_correct"] / count),
    }
