"""A study's results as tables."""

import dataclasses
import statistics
from collections.abc import Sequence

from afd_jax.reports.paired import Difference, Spread, paired, spread
from experiments.study.plan import Block
from experiments.study.records import Record, Records


@dataclasses.dataclass(frozen=True)
class Row:
    """One architecture of one setting.

    Attributes:
      setting: its name.
      network: the architecture; networks of one architecture, and the branches of a network, are
        averaged within a seed.
      accuracy: on the test set after the last step, in percent.
      difference: to the same architecture of the baseline, in points; None for the baseline itself.
      ensemble: accuracy of the averaged probabilities, in percent; None for a single network.
    """

    setting: str
    network: str
    accuracy: Spread
    difference: Difference | None
    ensemble: Spread | None


def rows(block: Block, results: Records) -> list[Row]:
    """The table of a block, in the order of the study, without what has no records yet."""
    baseline = by_network(results.of(block.name, block.baseline))
    found = []
    for setting in block.settings:
        records = results.of(block.name, setting.name)
        several = any(len(_students(r)) > 1 for r in records)
        ensemble = spread([100 * r["ensemble_accuracy"] for r in records]) if several else None
        for network, values in by_network(records).items():
            difference = None
            if setting.name != block.baseline and network in baseline:
                difference = paired(values, baseline[network])
            accuracy = spread([*values.values()])
            found.append(Row(setting.name, network, accuracy, difference, ensemble))
    return found


def by_network(records: Sequence[Record]) -> dict[str, dict[int, float]]:
    """Test accuracy in percent by architecture and seed."""
    values: dict[str, dict[int, float]] = {}
    for record in records:
        own: dict[str, list[float]] = {}
        for node in _students(record).values():
            own.setdefault(node["network"], []).append(100 * node["accuracy"])
        for network, each in own.items():
            values.setdefault(network, {})[record["seed"]] = statistics.fmean(each)
    return values


def _students(record: Record) -> dict[str, Record]:
    return {name: node for name, node in record["nodes"].items() if node["role"] == "student"}


def markdown(block: Block, results: Records) -> str:
    """The table of a block in Markdown, with what is missing said below it."""
    lines = [
        f"| {block.name} | network | test accuracy, % | minus {block.baseline}, points (95 %) "
        f"| seeds to see {block.matters:g} | ensemble, % |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows(block, results):
        needed = row.difference.seeds_for(block.matters) if row.difference else None
        cells = (
            row.setting,
            row.network,
            percent(row.accuracy),
            points(row.difference),
            "" if needed is None else str(needed),
            "" if row.ensemble is None else percent(row.ensemble),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", seeds_in_words(block, results)])


def seeds_in_words(block: Block, results: Records) -> str:
    """How many seeds the table has, and which settings have fewer than planned."""
    fewer = [
        s.name for s in block.settings if len(results.of(block.name, s.name)) < len(block.seeds)
    ]
    words = f"{len(block.seeds)} seeds each"
    if not fewer:
        return f"{words}."
    counted = (f"{name} {len(results.of(block.name, name))}" for name in fewer)
    return f"{words} planned; so far: {', '.join(counted)}" + (
        ", all others complete." if len(fewer) < len(block.settings) else "."
    )


def percent(value: Spread) -> str:
    """Mean and deviation."""
    return f"{value.mean:.2f}" + ("" if value.deviation is None else f" ± {value.deviation:.2f}")


def points(value: Difference | None) -> str:
    """A difference with its interval; bold where the interval leaves out zero."""
    if value is None:
        return ""
    if value.low is None or value.high is None:
        return f"{value.mean:+.2f}"
    text = f"{value.mean:+.2f} ({value.low:+.2f} to {value.high:+.2f})"
    return f"**{text}**" if value.told else text
