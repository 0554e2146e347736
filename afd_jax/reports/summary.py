"""The content of summary.json."""

import pathlib
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import flax
import jax
import optax

import afd_jax
from afd_jax.reports.facts import OTHERS, Facts
from afd_jax.reports.paired import paired

Record = dict[str, Any]

# Of several students together: the accuracy of their averaged probabilities, and the mean of their
# accuracies, which AFD's authors report for unlike networks; each also of the twins.
_TOGETHER = ("ensemble", "mean")
_FIELDS = [f"{of}{name}_test_accuracy" for of in ("", "twin_") for name in _TOGETHER]
_PARTS = {"networks": ("student",), "twins": ("twin",), "others": OTHERS}


def summarise(
    facts: Facts,
    records: Sequence[Record],
    *,
    seeds: Sequence[int],
    steps: int,
    steps_per_epoch: int,
    batch_size: int,
    times: Mapping[str, float],
    device: str,
    commit: Any,
) -> Record:
    """What is left of a run; accuracies are fractions, of the last epoch.

    Args:
      facts: as from `facts.graph_facts`.
      records: all of metrics.jsonl.
      seeds: of the run.
      steps: of the run.
      steps_per_epoch: likewise.
      batch_size: over all devices.
      times: "compile_seconds" (to the end of the first step), "train_seconds" and "timed_steps"
        (all other steps), over all sessions of the run.
      device: in words.
      commit: of the code, as `commit()` gave it when training began.
    """
    runs = []
    for seed in seeds:
        own = [r for r in records if r["seed"] == seed]
        runs.append({"seed": seed, **_accuracies(facts, own)})
    every = runs[0]
    if len(runs) > 1:
        every = {"seeds": list(seeds)}
        every |= {part: _over_seeds([r[part] for r in runs]) for part in _PARTS}
        for name in _FIELDS:
            if name in runs[0]:
                every |= _spread(name, [r[name] for r in runs])
        every["runs"] = runs
    every["differences"] = _differences(runs)
    seconds = times["train_seconds"]
    images = times["timed_steps"] * batch_size * len(runs)
    students = [node["network"] for node in facts["nodes"] if node["role"] == "student"]
    return {
        **every,
        "branches": len({*students}) < len(students),
        "steps": steps,
        "epochs": steps / steps_per_epoch,
        "compile_seconds": times["compile_seconds"],
        "train_seconds": seconds,
        "images_per_second": images / seconds if seconds else None,
        "jax_version": jax.__version__,
        "versions": {
            "afd_jax": afd_jax.__version__,
            "flax": flax.__version__,
            "optax": optax.__version__,
        },
        "commit": commit,
        "device": device,
    }


def _accuracies(facts: Facts, records: Sequence[Record]) -> Record:
    """Of one seed, by role."""
    by_kind = {kind: [r for r in records if r["kind"] == kind] for kind in ("test", "heldout")}

    def last(kind: str, name: str) -> float | None:
        """What is frozen is evaluated once, so not in every record."""
        found = [r["accuracy"][name] for r in by_kind[kind] if name in r["accuracy"]]
        return found[-1] if found else None

    def network(node: Mapping[str, Any]) -> Record:
        name = node["name"]
        heldout = [r for r in by_kind["heldout"] if name in r["accuracy"]]
        best = max(heldout, key=lambda r: r["accuracy"][name], default=None)
        return {
            **node,
            "test_accuracy": last("test", name),
            "heldout_accuracy": last("heldout", name),
            "best_heldout_epoch": best["epoch"] if best else None,
        }

    parts = {
        part: [network(node) for node in facts["nodes"] if node["role"] in roles]
        for part, roles in _PARTS.items()
    }
    together: Record = {}
    for of, part in (("", "networks"), ("twin_", "twins")):
        if (ensemble := by_kind["test"][-1].get(f"{of}ensemble_accuracy")) is not None:
            together[f"{of}ensemble_test_accuracy"] = ensemble
        if parts[part]:
            mean = statistics.fmean(node["test_accuracy"] for node in parts[part])
            together[f"{of}mean_test_accuracy"] = mean
    return {**parts, **together}


def _differences(runs: Sequence[Record]) -> Record:
    """Each student's test accuracy minus its twin's, and of several together, seed by seed.

    By name; "mean", and for several seeds "low" and "high", the ends of a 95 % interval.
    """
    own: dict[str, list[dict[int, float]]] = {}
    for run in runs:
        students = {node["name"]: node["test_accuracy"] for node in run["networks"]}
        pairs = {twin["of"]: (students[twin["of"]], twin["test_accuracy"]) for twin in run["twins"]}
        if len(pairs) > 1 and all(name in run for name in _FIELDS):
            for name in _TOGETHER:
                pairs[name] = (run[f"{name}_test_accuracy"], run[f"twin_{name}_test_accuracy"])
        for name, pair in pairs.items():
            together, alone = own.setdefault(name, [{}, {}])
            together[run["seed"]], alone[run["seed"]] = pair
    found = {}
    for name, (together, alone) in own.items():
        difference = paired(together, alone)
        assert difference is not None
        found[name] = {"mean": difference.mean}
        if difference.low is not None and difference.high is not None:
            found[name] |= {"low": difference.low, "high": difference.high}
    return found


def _over_seeds(runs: Sequence[Sequence[Record]]) -> list[Record]:
    """Means and deviations of networks, which each run has in the same order."""
    kept = ("name", "role", "of", "parameters")
    return [
        {
            **{field: same[0][field] for field in kept},
            **_spread("test_accuracy", [n["test_accuracy"] for n in same]),
        }
        for same in zip(*runs, strict=True)
    ]


def _spread(name: str, values: Sequence[float]) -> Record:
    """Mean and sample deviation."""
    return {name: statistics.mean(values), f"{name}_deviation": statistics.stdev(values)}


def mean_record(records: Sequence[Record]) -> Record:
    """One record for those of several seeds, with numbers averaged."""

    def mean(values: Sequence[Any]) -> Any:
        if isinstance(values[0], dict):
            return {key: mean([value[key] for value in values]) for key in values[0]}
        return values[0] if isinstance(values[0], str | int) else statistics.fmean(values)

    return {name: mean([r[name] for r in records]) for name in records[0] if name != "seed"}


def commit(folder: pathlib.Path = pathlib.Path(__file__).parent) -> Any:
    """The commit of the code in `folder`, ending in "-dirty" if Python files have changed since.

    None outside a git checkout, and for code that the checkout around it does not hold, such as a
    package installed in somebody's project. Changed results and pages do not count: a study
    rewrites its own.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", ".")
        changed = git("diff", "--name-only", "HEAD", "--", ":/*.py")
        return git("describe", "--always", "--abbrev=12") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
