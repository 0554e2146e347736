"""A study's results as tables."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

from afd_jax.reports.paired import Difference, Spread, paired, spread
from experiments.study.plan import Block, Study
from experiments.study.records import Record, Records


@dataclasses.dataclass(frozen=True)
class Row:
    """One architecture of one setting.

    Attributes:
      setting: name of the setting.
      network: the architecture; networks with the same architecture, and the branches of a
        network, are averaged within a seed; a leader of branches stands apart, "resnet8 leader",
        and so do averages over time, "average of resnet8".
      accuracy: on the test set after the last step, in percent.
      difference: from the same architecture of the baseline, in points; None for the baseline.
      ensemble: accuracy of the averaged probabilities, in percent; None for a single network.
    """

    setting: str
    network: str
    accuracy: Spread
    difference: Difference | None
    ensemble: Spread | None


def rows(block: Block, results: Records) -> list[Row]:
    """The table of a block, in the order of the study, without settings that lack records."""
    baseline = by_network(results.of(block.name, block.baseline))
    found = []
    for setting in block.settings:
        records = results.of(block.name, setting.name)
        several = any(len(_students(r)) > 1 for r in records)
        ensemble = spread([100 * r["ensemble_accuracy"] for r in records]) if several else None
        for network, values in by_network(records).items():
            difference = None
            plain = network.removesuffix(_LEADER).removeprefix(_AVERAGE)
            if setting.name != block.baseline and plain in baseline:
                difference = paired(values, baseline[plain])
            accuracy = spread([*values.values()])
            found.append(Row(setting.name, network, accuracy, difference, ensemble))
    return found


_LEADER, _AVERAGE = " leader", "average of "


def by_network(records: Sequence[Record]) -> dict[str, dict[int, float]]:
    """Test accuracy in percent by architecture and seed."""
    values: dict[str, dict[int, float]] = {}
    for record in records:
        own: dict[str, list[float]] = {}
        for name, node in record["nodes"].items():
            learns = record["nodes"][name.removeprefix(_AVERAGE)]  # it, or what it is an average of
            if learns["role"] != "student":
                continue
            network = node["network"] + (_LEADER if name == "leader" else "")
            own.setdefault(network, []).append(100 * node["accuracy"])
        for network, each in own.items():
            values.setdefault(network, {})[record["seed"]] = statistics.fmean(each)
    return values


def _students(record: Record) -> dict[str, Record]:
    return {name: node for name, node in record["nodes"].items() if node["role"] == "student"}


def markdown(block: Block, results: Records) -> str:
    """The table of a block in Markdown, followed by a line about missing seeds."""
    published = any(setting.published for setting in block.settings)
    head = [block.name, "network", "test accuracy, %"]
    head += ["published, %", "ours minus published"] if published else []
    head += [f"minus {block.baseline}, points (95 %)", f"seeds to see {block.matters:g}"]
    lines = [head, ["---"] * (len(head) + 1)]
    head.append("ensemble, %")
    for row in rows(block, results):
        cells = [row.setting, row.network, percent(row.accuracy)]
        if published:
            paper = block.setting(row.setting).published.get(row.network)
            own = row.accuracy.mean
            cells += ["", ""] if paper is None else [f"{paper:.2f}", f"{own - paper:+.2f}"]
        needed = row.difference.seeds_for(block.matters) if row.difference else None
        cells += [points(row.difference), "" if needed is None else str(needed)]
        lines.append([*cells, "" if row.ensemble is None else percent(row.ensemble)])
    table = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*table, "", seeds_in_words(block, results)])


def claims(study: Study, results: Records) -> str:
    """The claims of a study with the differences that test them, in Markdown.

    Architectures that both settings have are averaged within a seed.
    """
    lines = ["| claim | compared | with | difference, points (95 %) | seeds |"]
    lines.append("|---|---|---|---|---|")
    for claim in study.claims:
        own, other = (
            by_network(results.of(claim.block, name)) for name in (claim.setting, claim.against)
        )
        shared = [network for network in own if network in other]
        if not shared:
            continue
        difference = paired(*({s: _mean(v, shared, s) for s in _seeds(v)} for v in (own, other)))
        compared = f"{claim.setting} minus {claim.against}"
        count = difference.count if difference else 0
        cells = (claim.words, compared, claim.block, points(difference), str(count))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _seeds(values: Mapping[str, Mapping[int, float]]) -> list[int]:
    return sorted(set.intersection(*({*own} for own in values.values())))


def _mean(values: Mapping[str, Mapping[int, float]], networks: Sequence[str], seed: int) -> float:
    return statistics.fmean(values[network][seed] for network in networks)


def likeness(block: Block, results: Records) -> str:
    """How similar the networks' last maps are after training, in Markdown; pairs are averaged."""
    measures = ("cka", "cosine", "l1", "l2")
    lines = ["| setting | CKA | cosine | L1 | L2 |", "|---|---|---|---|---|"]
    for setting in block.settings:
        ends = [r["curve"][-1].get("similarity") for r in results.of(block.name, setting.name)]
        pairs = [[*end.values()] for end in ends if end]
        if not pairs or not all(m in pair for each in pairs for pair in each for m in measures):
            continue
        cells = []
        for m in measures:
            own = spread([statistics.fmean(pair[m] for pair in each) for each in pairs])
            cells.append(f"{own.mean:.3f} ± {own.deviation or 0:.3f}")
        lines.append(f"| {setting.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def effect(study: Study, setting: str, results: Records) -> str:
    """What a setting of the study's first block with that name changes, a number for each network.

    Points by which it differs from the block's baseline, bold if the interval excludes zero.
    """
    block = next(b for b in study.blocks if any(s.name == setting for s in b.settings))
    found = [row.difference for row in rows(block, results) if row.setting == setting]
    return ", ".join(
        f"**{change.mean:+.2f}**" if change.told else f"{change.mean:+.2f}"
        for change in found
        if change is not None
    )


def seeds(study: Study, results: Records) -> str:
    """How many seeds the settings of a study have: "10", or "5 to 10"."""
    counts = _counts(study, results)
    return f"{min(counts)} to {max(counts)}" if len({*counts}) > 1 else str(counts[0])


def runs(study: Study, results: Records) -> str:
    """How many runs of a study are done: "90", or "40 of 90"."""
    done = sum(_counts(study, results))
    every = sum(len(block.settings) * len(block.seeds) for block in study.blocks)
    return f"{every}" if done == every else f"{done} of {every}"


def _counts(study: Study, results: Records) -> list[int]:
    return [len(results.of(b.name, s.name)) for b in study.blocks for s in b.settings]


def seeds_in_words(block: Block, results: Records) -> str:
    """How many seeds the table has, and which settings have fewer than planned."""
    there = {s.name: len(results.of(block.name, s.name)) for s in block.settings}
    planned = len(block.seeds)
    fewer: dict[int, list[str]] = {}
    for name, count in there.items():
        if count < planned:
            fewer.setdefault(count, []).append(name)
    if not fewer:
        return f"{planned} seeds each."
    if len(fewer) == 1 and len(there) == len(next(iter(fewer.values()))):
        return f"{next(iter(fewer))} seeds of {planned} planned."
    counted = (f"{count} of {', '.join(names)}" for count, names in fewer.items())
    return f"{planned} seeds each planned; so far only {'; '.join(counted)}."


def percent(value: Spread) -> str:
    """Mean and standard deviation."""
    return f"{value.mean:.2f}" + ("" if value.deviation is None else f" ± {value.deviation:.2f}")


def points(value: Difference | None) -> str:
    """A difference with its interval; bold if the interval excludes zero."""
    if value is None:
        return ""
    if value.low is None or value.high is None:
        return f"{value.mean:+.2f}"
    text = f"{value.mean:+.2f} ({value.low:+.2f} to {value.high:+.2f})"
    return f"**{text}**" if value.told else text
