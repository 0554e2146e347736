"""What `afd-eval` prints: tables of an analysis, and how it compares with a run's summary."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from afd_jax.reports.analysis import Array
from afd_jax.reports.paired import spread

Record = Mapping[str, Any]

# Field, head, factor, decimals, unit.
_COLUMNS = (
    ("accuracy", "accuracy", 100, 2, " %"),
    ("top_5_accuracy", "top-5", 100, 2, " %"),
    ("nll", "NLL", 1, 4, ""),
    ("ece", "ECE", 100, 2, " %"),
)
_NEAR = 1e-3
_SHOWN = 20  # images at most


def table(runs: Sequence[Record]) -> str:
    """A line per node: accuracy, top-5 accuracy, negative log-likelihood in nats, ECE.

    Args:
      runs: one analysis per seed, as from `analysis.analyse`; of several, mean and deviation.
    """
    nodes = runs[0]["nodes"]
    width = max(map(len, [*nodes, "network"])) + 2
    columns = [column for column in _COLUMNS if column[0] in next(iter(nodes.values()))]
    cells = 20 if len(runs) > 1 else 12
    lines = [f"{'network':{width}}" + "".join(f"{head:>{cells}}" for _, head, *_ in columns)]
    for node in nodes:
        line = f"{node:{width}}"
        for field, _, factor, decimals, unit in columns:
            own = spread([factor * run["nodes"][node][field] for run in runs])
            after = "" if own.deviation is None else f" ± {own.deviation:.{decimals}f}"
            line += f"{own.mean:.{decimals}f}{after}{unit}".rjust(cells)
        lines.append(line)
    return "\n".join(lines)


def per_class_table(runs: Sequence[Record]) -> str:
    """A line per class: its examples and the accuracy of each node, in percent.

    Args:
      runs: as in `table`; of several, the mean.
    """
    nodes = runs[0]["nodes"]
    classes = [own["name"] for own in runs[0]["nodes"][next(iter(nodes))]["per_class"]]
    width = max(map(len, [*classes, "class"])) + 2
    lines = [f"{'class':{width}}{'examples':>10}" + "".join(_column(node, node) for node in nodes)]
    for i, name in enumerate(classes):
        line = f"{name:{width}}"
        for n, node in enumerate(nodes):
            each = [run["nodes"][node]["per_class"][i] for run in runs]
            if not n:
                line += f"{each[0]['count']:10,}"
            accuracy = [own["accuracy"] for own in each]
            words = "none" if None in accuracy else f"{100 * np.mean(accuracy):.2f} %"
            line += _column(node, words)
        lines.append(line)
    return "\n".join(lines)


def _column(node: str, words: str) -> str:
    return words.rjust(max(len(node) + 2, 12))


def guesses(
    probabilities: Mapping[str, Array], examples: Sequence[str], class_names: Sequence[str]
) -> str:
    """A line per image, the first twenty: what each node takes it for, and how surely.

    Args:
      probabilities: [examples, classes] by node.
      examples: names of the images.
      class_names: of all classes.
    """
    rows = [["image", *probabilities]]
    for i, example in enumerate(examples[:_SHOWN]):
        best = [(class_names[p[i].argmax()], p[i].max()) for p in probabilities.values()]
        rows.append([example, *(f"{name} ({100 * p:.1f} %)" for name, p in best)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    if len(examples) > _SHOWN:
        lines.append(f"... and {len(examples) - _SHOWN:,} more")
    return "\n".join(lines)


def recorded(summary: Record, seed: int, split: str) -> dict[str, float]:
    """The accuracies of a split, "test" or "heldout", that summary.json holds for a seed, by node.

    Of several students together "ensemble", of their twins "ensemble alone": only of the test.
    """
    (own,) = (run for run in summary.get("runs", [summary]) if run["seed"] == seed)
    nodes = [node for part in ("networks", "twins", "others") for node in own[part]]
    found = {node["name"]: node[f"{split}_accuracy"] for node in nodes}
    if split == "test":
        found["ensemble"] = own.get("ensemble_test_accuracy")
        found["ensemble alone"] = own.get("twin_ensemble_test_accuracy")
    return {name: value for name, value in found.items() if value is not None}


def compare(
    analysis: Record, probabilities: Mapping[str, Array], noted: Mapping[str, float]
) -> tuple[list[str], bool]:
    """Sets the accuracies of an analysis against those noted in training.

    Another device or batch size rounds otherwise, which can only turn predictions whose two largest
    probabilities are nearly equal. So a difference of no more examples than there are of these is
    called rounding.

    Args:
      analysis: of one seed.
      probabilities: that it is of, ensembles included, by node.
      noted: as from `recorded`.

    Returns:
      (a line for each node that differs, whether all differences may be rounding).
    """
    lines, rounding, count = [], True, analysis["examples"]
    for name, node in analysis["nodes"].items():
        if name not in noted or node["accuracy"] == noted[name]:
            continue
        examples = round(abs(node["accuracy"] - noted[name]) * count)
        second, first = np.sort(probabilities[name], axis=1)[:, -2:].T
        near = int(np.sum(first - second < _NEAR))
        line = f"{name}: {100 * node['accuracy']:.4f} %, but {100 * noted[name]:.4f} % in "
        line += f"summary.json ({examples} of {count} examples; {near} are nearly undecided)"
        lines.append(line)
        rounding = rounding and examples <= near
    return lines, rounding
