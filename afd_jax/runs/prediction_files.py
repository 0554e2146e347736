"""Predictions as files: CSV and JSON lines with a line per example and node, or NumPy arrays."""

import csv
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from afd_jax.errors import SettingError, first_line
from afd_jax.reports.analysis import Array

SUFFIXES = (".csv", ".jsonl", ".npz")
_FIELDS = ("seed", "network", "example", "label", "predicted", "probability")


def write_predictions(
    file: str | pathlib.Path,
    probabilities: Mapping[int, Mapping[str, Array]],
    labels: Array | None,
    examples: Sequence[str],
    class_names: Sequence[str],
) -> None:
    """Writes the predictions of all seeds and nodes.

    .csv has the columns seed, network, example, label, predicted and probability (of the class that
    is predicted); classes by name, the label empty where there is none. .jsonl has the same and
    "probabilities" of all classes. .npz has "probabilities" [seeds, networks, examples, classes]
    float32 and the names along its axes, "seeds", "networks", "examples", "classes"; and "labels"
    [examples], numbers, where there are some.

    Args:
      file: its suffix says how to write.
      probabilities: [examples, classes], by seed and node.
      labels: [examples]; None without.
      examples: of each its row or file.
      class_names: of all classes.

    Raises:
      SettingError: for another suffix, or if the file cannot be written.
    """
    path = require_suffix(file)
    try:
        if path.suffix == ".npz":
            _write_arrays(path, probabilities, labels, examples, class_names)
            return
        rows = _rows(probabilities, labels, examples, class_names)
        with path.open("w", newline="") as out:
            if path.suffix == ".jsonl":
                out.writelines(json.dumps(row) + "\n" for row in rows)
            else:
                writer = csv.DictWriter(out, _FIELDS, extrasaction="ignore", lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
    except OSError as error:
        remedy = f"cannot be written ({error.strerror or first_line(error)})"
        raise SettingError("--predictions", str(path), remedy) from error


def require_suffix(file: str | pathlib.Path) -> pathlib.Path:
    """Raises SettingError for a file that predictions cannot be written to by its suffix."""
    path = pathlib.Path(file)
    if path.suffix not in SUFFIXES:
        raise SettingError("--predictions", str(file), f"must end in {', '.join(SUFFIXES)}")
    return path


def _rows(
    probabilities: Mapping[int, Mapping[str, Array]],
    labels: Array | None,
    examples: Sequence[str],
    class_names: Sequence[str],
) -> Iterator[dict[str, Any]]:
    for seed, nodes in probabilities.items():
        for node, own in nodes.items():
            for i, (example, values) in enumerate(zip(examples, own, strict=True)):
                predicted = int(np.argmax(values))
                yield {
                    "seed": seed,
                    "network": node,
                    "example": example,
                    "label": None if labels is None else class_names[labels[i]],
                    "predicted": class_names[predicted],
                    "probability": float(values[predicted]),
                    "probabilities": values.tolist(),
                }


def _write_arrays(
    path: pathlib.Path,
    probabilities: Mapping[int, Mapping[str, Array]],
    labels: Array | None,
    examples: Sequence[str],
    class_names: Sequence[str],
) -> None:
    each = [np.stack([*nodes.values()]) for nodes in probabilities.values()]
    content = {
        "probabilities": np.stack(each).astype(np.float32),
        "seeds": np.array([*probabilities]),
        "networks": np.array([*next(iter(probabilities.values()))]),
        "examples": np.array(examples),
        "classes": np.array(class_names),
    }
    if labels is not None:
        content["labels"] = labels
    np.savez_compressed(path, **content)  # type: ignore[arg-type]
