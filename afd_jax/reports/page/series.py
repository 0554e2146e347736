"""From lines of metrics.jsonl to panels of curves, for one run or for several."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from afd_jax.reports.curves import Curve, curve
from afd_jax.reports.facts import OTHERS, with_role
from afd_jax.reports.page.records import RunRecords

STYLES = ("-", "--", ":", "-.")
PALETTE = 8  # colours of the style sheet: --s0, --s1, ...


@dataclasses.dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
      name: of it.
      epochs: [points].
      values: [points, seeds].
      colour: its number in the page's palette; None for grey.
      style: of its line, one of `STYLES`.
    """

    name: str
    epochs: Sequence[float]
    values: np.ndarray
    colour: int | None
    style: str = "-"


@dataclasses.dataclass(frozen=True)
class Panel:
    """Curves in one frame.

    Attributes:
      title: what is measured, with its unit.
      series: at least one.
      digits: behind the point, where numbers are told.
      log: of the vertical axis.
      zero: draw a line at zero.
    """

    title: str
    series: Sequence[Series]
    digits: int = 3
    log: bool = False
    zero: bool = False


def colours(run: RunRecords) -> dict[str, int]:
    """The palette's number of each node; what belongs to a student has that student's."""
    owners = [node for node in run.facts["nodes"] if node["of"] is None]
    numbers = {node["name"]: k for k, node in enumerate(owners)}
    return {n["name"]: numbers[n["of"] or n["name"]] for n in run.facts["nodes"]}


def _styles(run: RunRecords) -> dict[str, str]:
    by_role = {"twin": "--", "average": ":", "snapshot": "-.", "teacher": "-."}
    numbers = colours(run)
    return {
        node["name"]: by_role.get(node["role"], _style(numbers[node["name"]]))
        for node in run.facts["nodes"]
    }


def _style(number: int) -> str:
    """Of lines whose colours begin again after the palette's last one."""
    return STYLES[number // PALETTE % len(STYLES)]


def looks(run: RunRecords) -> dict[str, tuple[int | None, str]]:
    """Colour and style of each node and of the ensembles."""
    styles = _styles(run)
    own: dict[str, tuple[int | None, str]] = {
        "ensemble": (None, "-"),
        "ensemble alone": (None, "--"),
    }
    return own | {name: (number, styles[name]) for name, number in colours(run).items()}


def _own(run: RunRecords, name: str, found: Curve, scale: float = 1.0) -> Series | None:
    """A node's curve; one value for all epochs, of what is frozen, becomes a line."""
    epochs, values = found
    if not epochs:
        return None
    if len(epochs) == 1:
        every = sorted({r["epoch"] for r in run.metrics if r["kind"] == "test"})
        if len(every) > 1 and name in with_role(run.facts, "teacher"):
            epochs, values = every, np.repeat(values, len(every), 0)
    return Series(name, epochs, scale * values, colours(run).get(name), _styles(run).get(name, "-"))


def _panel(
    title: str, series: Iterable[Series | None], digits: int = 3, **look: Any
) -> list[Panel]:
    found = [s for s in series if s is not None]
    return [Panel(title, found, digits, **look)] if found else []


def accuracy_panels(run: RunRecords) -> list[Panel]:
    """Test and held-out accuracy, what learning together brought, and how far from its sources."""
    names = [node["name"] for node in run.facts["nodes"]]
    students = with_role(run.facts, "student")
    panels = []
    for kind, title in (("test", "Test accuracy, %"), ("heldout", "Held-out accuracy, %")):
        lines = [_own(run, n, curve(run.metrics, kind, "accuracy", n), 100) for n in names]
        if len(students) > 1:
            for field, name, style in (
                ("ensemble_accuracy", "ensemble", "-"),
                ("twin_ensemble_accuracy", "ensemble alone", "--"),
            ):
                epochs, values = curve(run.metrics, kind, field)
                if epochs:
                    lines.append(Series(name, epochs, 100 * values, None, style))
        panels += _panel(title, lines, 2)
    gains = []
    for twin in run.facts["nodes"]:
        if twin["role"] == "twin":
            epochs, together = curve(run.metrics, "test", "accuracy", twin["of"])
            same, alone = curve(run.metrics, "test", "accuracy", twin["name"])
            if epochs and epochs == same:
                gain = 100 * (together - alone)
                gains.append(Series(twin["of"], epochs, gain, colours(run)[twin["of"]]))
    panels += _panel("Accuracy minus the same alone, points", gains, 2, zero=True)
    lines = [_own(run, n, curve(run.metrics, "test", "cross_entropy", n)) for n in names]
    panels += _panel("Test cross-entropy, nats", lines, 3)
    lines = [_own(run, n, curve(run.metrics, "heldout", "divergence", n)) for n in names]
    return panels + _panel("Held-out divergence from those who teach, nats", lines, 4)


def _keys(run: RunRecords, prefix: str) -> list[str]:
    """What follows a node and a prefix in the names of training metrics, sorted."""
    names = sorted((node["name"] for node in run.facts["nodes"]), key=len, reverse=True)
    found = set()
    for record in run.metrics:
        if record["kind"] != "train":
            continue
        for key in record:
            for name in names:
                if key.startswith(f"{name}/{prefix}"):
                    found.add(key.removeprefix(f"{name}/"))
                    break
    return sorted(found)


def _trained(run: RunRecords, key: str, scale: float = 1.0) -> list[Series | None]:
    names = [node["name"] for node in run.facts["nodes"]]
    return [_own(run, n, curve(run.metrics, "train", f"{n}/{key}"), scale) for n in names]


def words(key: str) -> str:
    """A metric's name as words.

    >>> words("loss/cross_entropy")
    'cross entropy'
    """
    return key.split("/")[-1].replace("_", " ")


def loss_panels(run: RunRecords) -> list[Panel]:
    """Every term of every node, a panel for each term."""
    panels = []
    for key in _keys(run, "loss/"):
        panels += _panel(f"Training loss: {words(key)}", _trained(run, key), 4)
    return panels


def critic_panels(run: RunRecords) -> list[Panel]:
    """How often discriminators are right about real and fake maps."""
    panels = []
    for what in ("real", "fake"):
        title = f"Discriminator right about {what} maps, %"
        panels += _panel(title, _trained(run, f"{what}_accuracy", 100), 1)
    return panels


def gradient_panels(run: RunRecords) -> list[Panel]:
    """Norms of gradients: of each update, and of each term at the network's outputs."""
    panels = []
    for key in _keys(run, "gradient_norm/"):
        panels += _panel(f"Gradient norm: {words(key)} update", _trained(run, key), 4, log=True)
    for key in _keys(run, "output_gradient_norm/"):
        title = f"Gradient norm at the outputs: {words(key)}"
        panels += _panel(title, _trained(run, key), 5, log=True)
    return panels


def other_panels(run: RunRecords) -> list[Panel]:
    """Training accuracy and whatever else a method measures."""
    told = re.compile(r"loss/|gradient_norm/|output_gradient_norm/|(real|fake)_accuracy$")
    panels = []
    for key in _keys(run, ""):
        if key == "accuracy":
            panels += _panel("Training accuracy, %", _trained(run, key, 100), 2)
        elif not told.match(key):
            panels += _panel(f"In training: {words(key)}", _trained(run, key), 4)
    return panels


def rate_panels(run: RunRecords) -> list[Panel]:
    """Learning rates of the three updates, as the settings' schedules give them."""
    series = []
    for k, (update, points) in enumerate(run.rates.items()):
        epochs, rates = zip(*points, strict=True)
        values = np.array(rates)[:, None]
        series.append(Series(f"{update} update", epochs, values, k, STYLES[k % len(STYLES)]))
    return _panel("Learning rate", series, 6, log=True)


MEASURES = {
    "cka": "linear CKA",
    "cosine": "cosine",
    "l1": "L1 distance",
    "l2": "L2 distance",
}


def similarity_panels(run: RunRecords) -> list[Panel]:
    """How alike the last maps of pairs of networks are, on test images."""
    originals = {n["name"]: n["of"] for n in run.facts["nodes"] if n["role"] == "twin"}
    pairs = list(dict.fromkeys(p for r in run.metrics for p in r.get("similarity", {})))
    numbers: dict[tuple[str, ...], int] = {}
    looks = {}
    for pair in sorted(pairs, key=lambda p: p.split(", ")[0] in originals):
        names = pair.split(", ")
        own = tuple(originals.get(name, name) for name in names)
        number = numbers.setdefault(own, len(numbers))
        looks[pair] = (number, "--" if names[0] in originals else _style(number))
    panels = []
    for measure, title in MEASURES.items():
        series = []
        for pair, (colour, style) in looks.items():
            epochs, values = curve(run.metrics, "test", "similarity", pair, measure)
            if epochs:
                series.append(Series(pair, epochs, values, colour, style))
        panels += _panel(f"Likeness of last maps: {title}", series, 4)
    return panels


def comparison_panels(runs: Sequence[RunRecords]) -> list[Panel]:
    """Curves of several runs in one frame: each network, the ensembles, loss terms, likeness."""
    names = dict.fromkeys(n for run in runs for n in with_role(run.facts, "student", *OTHERS))
    panels = []
    for name in names:
        panels += _over(runs, f"Test accuracy of {name}, %", _test("accuracy", name), 2, 100)
    title = "Test accuracy of the ensemble, %"
    panels += _over(runs, title, _ensemble, 2, 100)
    terms = sorted({key for run in runs for key in _keys(run, "loss/")})
    for term in terms:
        title = f"Training loss: {words(term)}, mean over networks"
        panels += _over(runs, title, _mean_of_term(term), 4)
    pairs = dict.fromkeys(p for run in runs for r in run.metrics for p in r.get("similarity", {}))
    for pair in pairs:
        if not any(pair.split(", ")[0] in with_role(run.facts, "twin") for run in runs):
            title = f"Likeness of last maps (CKA): {pair}"
            panels += _over(runs, title, _test("similarity", pair, "cka"), 4)
    return panels


def _over(
    runs: Sequence[RunRecords],
    title: str,
    found: Callable[[RunRecords], Curve],
    digits: int,
    scale: float = 1.0,
) -> list[Panel]:
    lines = []
    for k, run in enumerate(runs):
        epochs, values = found(run)
        if epochs:
            style = _style(k)
            lines.append(Series(run.name, epochs, scale * values, k % PALETTE, style))
    return _panel(title, lines, digits)


def _test(*path: str) -> Callable[[RunRecords], Curve]:
    return lambda run: curve(run.metrics, "test", *path)


def _ensemble(run: RunRecords) -> Curve:
    if len(with_role(run.facts, "student")) < 2:  # then the ensemble is that student
        return [], np.zeros((0, 0))
    return _test("ensemble_accuracy")(run)


def _mean_of_term(term: str) -> Callable[[RunRecords], Curve]:
    def found(run: RunRecords) -> Curve:
        names = with_role(run.facts, "student", "ensemble")
        curves = [curve(run.metrics, "train", f"{name}/{term}") for name in names]
        curves = [c for c in curves if c[0]]
        if not curves or any(c[0] != curves[0][0] for c in curves):
            return [], np.zeros((0, 0))
        return curves[0][0], np.mean([c[1] for c in curves], axis=0)

    return found


def last(series: Series) -> float:
    """Mean over the seeds at the last point."""
    return float(series.values[-1].mean())


def as_json(panel: Panel) -> list[dict[str, Any]]:
    """Points of a panel for the page's script: epochs, means, and ranges of several seeds."""
    found = []
    for s in panel.series:
        own: dict[str, Any] = {"name": s.name, "x": list(s.epochs), "y": s.values.mean(1).tolist()}
        if s.values.shape[1] > 1:
            own |= {"low": s.values.min(1).tolist(), "high": s.values.max(1).tolist()}
        found.append(own)
    return found
