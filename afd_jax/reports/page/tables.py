"""The page's tables: rows of words, made of records."""

import dataclasses
import datetime
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from afd_jax.reports.curves import curve
from afd_jax.reports.facts import with_role
from afd_jax.reports.page.records import RunRecords
from afd_jax.reports.paired import Difference, paired


@dataclasses.dataclass(frozen=True)
class Table:
    """Words in rows.

    Attributes:
      head: of the columns.
      rows: of as many cells; numbers from the second column on stand to the right.
      caption: a sentence.
      shades: of each cell a share in [0, 1] to shade it by; none if empty.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    shades: Sequence[Sequence[float]] = ()


def percent(values: Sequence[float]) -> str:
    """Mean and sample deviation of fractions.

    >>> percent([0.5, 0.75])
    '62.50 ± 17.68'
    """
    if not values:
        return ""
    text = f"{100 * statistics.fmean(values):.2f}"
    return text + (f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else "")


def points(difference: Difference | None) -> str:
    """A difference of fractions in points, with its interval."""
    if difference is None:
        return ""
    text = f"{100 * difference.mean:+.2f}"
    if difference.low is not None and difference.high is not None:
        text += f" ({100 * difference.low:+.2f} to {100 * difference.high:+.2f})"
    return text


BySeed = Mapping[int, float]


def final(run: RunRecords, kind: str = "test") -> Mapping[str, BySeed]:
    """Accuracies at the last evaluation, by network and seed.

    What is frozen is evaluated once. Of several students there are also "ensemble" and "mean", of
    their twins "ensemble alone" and "mean alone". A seed without an evaluation is left out.
    """
    found: dict[str, dict[int, float]] = {}
    together = (("ensemble", "ensemble_accuracy"), ("ensemble alone", "twin_ensemble_accuracy"))
    students = with_role(run.facts, "student")
    for record in run.metrics:
        if record["kind"] != kind:
            continue
        seed = record["seed"]
        for name, value in record["accuracy"].items():
            found.setdefault(name, {})[seed] = value
        for name, field in together if len(students) > 1 else ():
            if field in record:
                found.setdefault(name, {})[seed] = record[field]
        for name, role in (("mean", "student"), ("mean alone", "twin")):
            own = [record["accuracy"].get(n) for n in with_role(run.facts, role)]
            if len(own) > 1 and None not in own:
                found.setdefault(name, {})[seed] = statistics.fmean(own)
    return found


def results(run: RunRecords) -> Table:
    """Each network's accuracy, its twin's, and the difference."""
    test, heldout = final(run), final(run, "heldout")
    nodes = [n for n in run.facts["nodes"] if n["role"] != "twin"]
    twins = {n["of"]: n["name"] for n in run.facts["nodes"] if n["role"] == "twin"}
    twins |= {"mean": "mean alone", "ensemble": "ensemble alone"} if twins else {}
    names = [node["name"] for node in nodes]
    names += [name for name in ("mean", "ensemble") if name in test and name not in names]
    sizes = {node["name"]: f"{node['parameters']:,}" for node in nodes}
    roles = {node["name"]: node["role"] for node in nodes}
    head = ["network", "test accuracy, %"]
    head += ["the same alone, %", "difference, points"] if twins else []
    head += ["held-out accuracy, %"] if heldout else []
    head += ["role", "parameters"]
    rows = []
    for name in names:
        row = [name, percent([*test.get(name, {}).values()])]
        if twins:
            alone = test.get(twins.get(name, ""), {})
            row += [percent([*alone.values()]), points(paired(test.get(name, {}), alone))]
        if heldout:
            row.append(percent([*heldout.get(name, {}).values()]))
        rows.append([*row, roles.get(name, ""), sizes.get(name, "")])
    for network in run.generations:
        accuracy = percent([network["test_accuracy"]])
        if (deviation := network.get("test_accuracy_deviation")) is not None:
            accuracy += f" ± {100 * deviation:.2f}"
        row = [f"generation {network['generation']}", accuracy]
        row += [""] * (len(head) - len(row) - 1)
        rows.append([*row, f"{network['parameters']:,}"])
    return Table(head, rows, _caption(run))


def _caption(run: RunRecords) -> str:
    last = max((r for r in run.metrics if r["kind"] == "test"), key=lambda r: r["step"], default={})
    if not last:
        return "No evaluation yet."
    text = f"At the last evaluation, epoch {last['epoch']:.4g}"
    if len(run.seeds) > 1:
        text += f"; mean and deviation of the seeds {', '.join(map(str, run.seeds))}"
        text += ". Differences are paired by seed, with the 95 % interval of their mean"
    return text + "."


def comparison(runs: Sequence[RunRecords]) -> Table:
    """A row for each network of any run, a column for each run."""
    finals = [final(run) for run in runs]
    names = _names(runs)
    rows = [
        [name, *(percent([*f.get(name, {}).values()]) for f in finals)]
        for name in names
        if any(name in found for found in finals)
    ]
    rows.append(["epochs", *map(_epochs, runs)])
    head = ["test accuracy, %", *(run.name for run in runs)]
    caption = "At each run's last evaluation; mean and deviation over its seeds."
    return Table(head, rows, caption)


def _epochs(run: RunRecords) -> str:
    """Those before the last evaluation."""
    last = max((r["epoch"] for r in run.metrics if r["kind"] == "test"), default=0)
    return f"{last:g}{', not finished' if run.summary is None else ''}"


def _names(runs: Sequence[RunRecords]) -> list[str]:
    """Networks of any run, what they are together, and then their twins."""
    roles = {node["name"]: node["role"] for run in runs for node in run.facts["nodes"]}
    alone = [name for name, role in roles.items() if role == "twin"]
    own = [name for name in roles if name not in alone]
    both = [*own, "mean", "ensemble", *alone, "mean alone", "ensemble alone"]
    return list(dict.fromkeys(both))


def differences(runs: Sequence[RunRecords]) -> Table | None:
    """Each run of the same data minus the first, over their common seeds; None without any."""
    base, *others = runs
    own = final(base)
    rows = []
    for run in others:
        if run.data["sha256"] != base.data["sha256"]:
            continue
        values = final(run)
        for name in _names([run]):
            if name in with_role(run.facts, "twin") or name in ("mean alone", "ensemble alone"):
                continue
            difference = paired(values.get(name, {}), own.get(name, {}))
            if difference is not None:
                rows.append([run.name, name, points(difference), str(difference.count)])
    if not rows:
        return None
    caption = f"Test accuracy minus that of {base.name}, seed by seed, with the 95 % interval of "
    caption += "the mean where there are two seeds or more."
    return Table(["run", "network", "difference, points", "seeds"], rows, caption)


def flat(settings: Any, path: str = "") -> dict[str, Any]:
    """Leaves by path.

    >>> flat({"a": {"b": 1}, "c": [2]})
    {'a.b': 1, 'c': [2]}
    """
    if not isinstance(settings, Mapping) or not settings:
        return {path: settings}
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{path}.{key}" if path else key)
    return found


def shown(value: Any) -> str:
    """A setting's value in words."""
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or "none"
    return "none" if value is None else str(value)


def settings(run: RunRecords) -> Table:
    """Settings that differ from the defaults."""
    own, known = flat(run.settings), flat(run.defaults)
    rows = [
        [name, shown(value), shown(known[name]) if name in known else ""]
        for name, value in own.items()
        if name not in known or value != known[name]
    ]
    return Table(["setting", "value", "default"], rows)


def settings_between(runs: Sequence[RunRecords]) -> Table:
    """Settings that are not the same in all runs."""
    every = [flat(run.settings) for run in runs]
    rows = []
    for name in dict.fromkeys(name for own in every for name in own):
        values = [shown(own[name]) if name in own else "" for own in every]
        if len({*values}) > 1:
            rows.append([name, *values])
    return Table(["setting", *(run.name for run in runs)], rows)


def facts(run: RunRecords) -> list[tuple[str, str]]:
    """What was run: names and words."""
    data, summary = run.data, run.summary
    last = max((r["step"] for r in run.metrics), default=0)
    found = [
        ("method", run.facts["method"]),
        ("folder", run.folder),
        ("data", f"{run.settings['data']['name']}, {data['classes']} classes"),
        (
            "images",
            f"{data['train']:,} to learn from, {data['heldout']:,} held out, {data['test']:,} test",
        ),
        ("seeds", ", ".join(map(str, run.seeds))),
    ]
    if summary is None:
        return [*found, ("state", f"not finished; {last:,} steps so far")]
    versions = {"jax": summary["jax_version"], **summary.get("versions", {})}
    speed, early = summary["images_per_second"], summary.get("stopped_early")
    state = f"finished: {summary['steps']:,} steps, {summary['epochs']:.4g} epochs"
    if early:
        state += f"; stopped early by the held-out {early['watch']}"
    return [
        *found,
        ("state", state),
        ("device", summary["device"]),
        ("time", f"{_time(summary['compile_seconds'])} to the end of the first step, "
         f"{_time(summary['train_seconds'])} of training"),
        *([("speed", f"{speed:,.0f} images per second")] if speed else []),
        ("versions", ", ".join(f"{k} {v}" for k, v in versions.items())),
        ("commit", str(summary["commit"] or "not known")),
        *(("teacher", f"{t['name']} by {t['method']}, {t['folder']}") for t in run.teachers),
    ]  # fmt: skip


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else str(datetime.timedelta(seconds=round(seconds)))


def calibration(analysis: Mapping[str, Any]) -> Table:
    """Per network: accuracy and how far its probabilities can be trusted."""
    rows = [
        [
            name,
            f"{100 * node['accuracy']:.2f}",
            f"{100 * node['ece']:.2f}",
            f"{node['nll']:.4f}",
            f"{node['brier']:.4f}",
        ]
        for name, node in analysis["nodes"].items()
    ]
    head = ["network", "accuracy, %", "ECE, points", "negative log-likelihood", "Brier score"]
    return Table(head, rows)


def agreement(analysis: Mapping[str, Any]) -> Table | None:
    """The share of images that two networks put into one class, as a square."""
    names = list(dict.fromkeys(n for pair in analysis["agreement"] for n in (pair["a"], pair["b"])))
    if not names:
        return None
    shares = {frozenset((p["a"], p["b"])): p["share"] for p in analysis["agreement"]}
    square = [[shares.get(frozenset((a, b))) if a != b else None for b in names] for a in names]
    rows = [
        [name, *("" if s is None else f"{100 * s:.2f}" for s in row)]
        for name, row in zip(names, square, strict=True)
    ]
    known = [*shares.values()]
    low, span = min(known), (max(known) - min(known)) or 1.0
    shades = [[0.0, *(0.0 if s is None else (s - low) / span for s in row)] for row in square]
    caption = "Share of test images that two networks put into the same class, %."
    return Table(["", *names], rows, caption, shades)


def confusion(analysis: Mapping[str, Any], name: str, count: int = 8) -> Table:
    """The classes that a network confuses most, label by row, prediction by column."""
    node, classes = analysis["nodes"][name], analysis["class_names"]
    told = [c for c in node["per_class"] if c["accuracy"] is not None]
    # The worst classes, and no more of them than have mistakes.
    worst = sorted(told, key=lambda c: c["accuracy"])[:count]
    index = {c: i for i, c in enumerate(classes)}
    rows_of = [index[c["name"]] for c in worst if c["accuracy"] < 1]
    wrong = {
        j: sum(node["confusion"][i][j] for i in rows_of if i != j) for j in range(len(classes))
    }
    more = [j for j in sorted(wrong, key=lambda j: -wrong[j]) if wrong[j] and j not in rows_of]
    columns = sorted({*rows_of, *more[: max(0, count + 4 - len(rows_of))]})
    rows, shades = [], []
    for i in rows_of:
        own, total = node["confusion"][i], max(1, sum(node["confusion"][i]))
        accuracy = f"{100 * own[i] / total:.1f}"
        rows.append([classes[i], accuracy, *(str(own[j]) if own[j] else "" for j in columns)])
        shades.append([0.0, 0.0, *(0.0 if j == i else own[j] / total for j in columns)])
    head = ["class", "right, %", *(classes[j] for j in columns)]
    return Table(head, rows, "Rows are true classes, worst first; columns are predictions.", shades)


def mistakes(analysis: Mapping[str, Any], names: Iterable[str]) -> Table:
    """The most frequent confusions of each network."""
    rows = []
    for name in names:
        for w in analysis["nodes"][name]["worst"][:5]:
            rows.append([name, str(w["label"]), str(w["predicted"]), str(w["count"])])
    return Table(["network", "class", "taken for", "images"], rows)


def numbers(run: RunRecords) -> Table:
    """Accuracy at each evaluation, for those who would rather read than look."""
    names = [node["name"] for node in run.facts["nodes"]]
    found = {name: curve(run.metrics, "test", "accuracy", name) for name in names}
    epochs = sorted({epoch for every, _ in found.values() for epoch in every})
    rows = []
    for epoch in epochs:
        row = [f"{epoch:.4g}"]
        for every, values in found.values():
            row.append(percent(values[every.index(epoch)].tolist()) if epoch in every else "")
        rows.append(row)
    return Table(["epoch", *names], rows)
