"""`afd-eval`: recomputes a run's numbers from its newest checkpoint, or predicts images."""

import argparse
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from afd_jax.commands.shared import add_trust, guarded

if TYPE_CHECKING:
    from afd_jax.runs.predictions import Predictions

_EPILOG = """\
examples:
  test accuracies, calibration  %(prog)s runs/digits
  one seed, class by class      %(prog)s runs/digits --seed=3 --per-class
  predictions of the test set   %(prog)s runs/digits --predictions=test.csv
  images of your own            %(prog)s runs/digits --images=FOLDER --predictions=own.csv
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: what follows the program's name; sys.argv if None.

    Returns:
      0 when done, 1 if accuracies differ from summary.json by more than rounding or an image cannot
      be read, 2 for a setting that cannot work or an extra that is not installed.
    """
    parser = argparse.ArgumentParser(
        prog="afd-eval",
        description="Evaluate the networks of a run from its newest checkpoint.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("workdir", metavar="WORKDIR", help="folder of the run")
    parser.add_argument("--split", help="test (default), heldout or train")
    path = os.path.expanduser  # a shell leaves --option=~/file as it is
    parser.add_argument("--images", metavar="FOLDER", type=path, help="predict its images instead")
    parser.add_argument(
        "--seed", metavar="N", default="all", help="one of the run's seeds, or all (default)"
    )
    parser.add_argument(
        "--network", "--node", dest="node", metavar="NAME", help="one network or ensemble only"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where the data are, if they have moved")
    parser.add_argument("--batch-size", metavar="N", type=int, help="images at a time")
    words = "write every prediction: .csv, .jsonl or .npz"
    parser.add_argument("--predictions", metavar="FILE", type=path, help=words)
    parser.add_argument("--json", metavar="FILE", type=path, help="write all measurements")
    parser.add_argument("--per-class", action="store_true", help="print accuracies of each class")
    add_trust(parser)
    known = parser.parse_args(arguments)
    return guarded(lambda: _run(known))


def _run(known: argparse.Namespace) -> int:
    # Imports stand here so that --help answers at once.
    from afd_jax.data.cache import keep_programs
    from afd_jax.reports.analysis import ensembles
    from afd_jax.reports.evaluation import guesses
    from afd_jax.runs.prediction_files import require_suffix, write_predictions
    from afd_jax.runs.predictions import predict_seeds

    if known.predictions:
        require_suffix(known.predictions)
    for option in ("predictions", "json"):
        _require_folder(f"--{option}", getattr(known, option))
    if known.images is not None:
        _require_split(known)
    known.split = known.split or "test"
    if known.node is not None:
        _require_node(known)
    keep_programs()
    found = predict_seeds(
        known.workdir,
        known.split,
        images=known.images,
        seeds=_seeds(known),
        batch_size=known.batch_size,
        data_dir=known.data_dir,
        trust=known.trust,
    )
    every = {
        own.seed: {**own.probabilities, **ensembles(own.probabilities, own.roles)} for own in found
    }
    chosen = {seed: _chosen(nodes, known.node) for seed, nodes in every.items()}
    first = found[0]
    print(_head(known, first, list(every)))
    code = 0
    if first.labels is None:
        print(guesses(chosen[first.seed], first.examples, first.class_names))
    else:
        code = _measure(known, found, chosen)
    if known.predictions:
        write_predictions(
            known.predictions, chosen, first.labels, first.examples, first.class_names
        )
        print(f"written: {known.predictions}")
    if first.unreadable:
        named = "; ".join(f"{file} ({why})" for file, why in [*first.unreadable.items()][:5])
        count = len(first.unreadable)
        words = f"error: {count} image{'s' * (count > 1)} cannot be read: {named}"
        print(words, file=sys.stderr)
        return 1
    return code


def _measure(
    known: argparse.Namespace,
    found: Sequence["Predictions"],
    chosen: Mapping[int, Mapping[str, Any]],
) -> int:
    """Prints and writes what needs labels; returns the exit code."""
    from afd_jax.reports.analysis import analyse
    from afd_jax.reports.evaluation import per_class_table, table

    first = found[0]
    assert first.labels is not None
    runs = [
        {"seed": own.seed, **analyse(first.labels, own.probabilities, own.class_names, own.roles)}
        for own in found
    ]
    for run in runs:
        run["nodes"] = {name: run["nodes"][name] for name in chosen[run["seed"]]}
    print(table(runs))
    if len(runs) > 1:
        print(f"mean and deviation of the seeds {', '.join(str(run['seed']) for run in runs)}")
    if known.per_class:
        print(f"\n{per_class_table(runs)}")
    code = _compared(known, first.step, runs, chosen)
    if known.json:
        _write(known.json, {"split": known.split, "step": first.step, "runs": runs})
        print(f"written: {known.json}")
    return code


def _compared(
    known: argparse.Namespace,
    step: int,
    runs: Sequence[Mapping[str, Any]],
    chosen: Mapping[int, Mapping[str, Any]],
) -> int:
    """Says how the accuracies compare with summary.json; returns the exit code."""
    from afd_jax.reports.evaluation import compare, recorded
    from afd_jax.runs.bucket import at_hand
    from afd_jax.runs.workdir import Workdir

    folder = Workdir(at_hand(known.workdir))
    if known.split not in ("test", "heldout"):
        return 0
    if not folder.summary.is_file():
        print("the run is not finished: there is no summary.json to compare with")
        return 0
    summary = folder.read_summary()
    if step != summary["steps"]:
        words = f"not compared: summary.json is of step {summary['steps']}, the newest checkpoint "
        print(f"{words}that can be read of step {step}", file=sys.stderr)
        return 1
    lines, rounding, compared = [], True, False
    for run in runs:
        noted = recorded(summary, run["seed"], known.split)
        compared = compared or not noted.keys().isdisjoint(run["nodes"])
        differing, small = compare(run, chosen[run["seed"]], noted)
        before = f"seed {run['seed']}, " if len(runs) > 1 else ""
        lines += [before + line for line in differing]
        rounding = rounding and small
    if not compared:
        print(f"not compared: summary.json has no {known.split} accuracy for the chosen networks")
    elif not lines:
        print("accuracies: equal to summary.json")
    elif rounding:
        print("accuracies: equal to summary.json but for rounding", *lines, sep="\n  ")
    else:
        print("error: accuracies differ from summary.json", *lines, sep="\n  ", file=sys.stderr)
        return 1
    return 0


def _seeds(known: argparse.Namespace) -> list[int] | None:
    """None stands for all."""
    from afd_jax.errors import SettingError

    if known.seed == "all":
        return None
    if not known.seed.isdecimal():
        raise SettingError("--seed", known.seed, "must be a whole number, or all")
    return [int(known.seed)]


def _chosen(nodes: Mapping[str, Any], node: str | None) -> dict[str, Any]:
    from afd_jax.errors import SettingError, one_of

    if node is None:
        return dict(nodes)
    if node not in nodes:
        raise SettingError("--network", node, one_of(node, nodes))
    return {node: nodes[node]}


def _head(known: argparse.Namespace, first: "Predictions", seeds: Sequence[int]) -> str:
    what = f"images of {known.images}" if known.images else f"{known.split} images"
    seed = f", seed {seeds[0]}" if len(seeds) == 1 or known.images else ""
    return f"{known.workdir}, step {first.step}{seed}: {len(first.examples):,} {what}"


def _require_folder(option: str, file: str | None) -> None:
    """Before minutes of computing, not after."""
    from afd_jax.errors import SettingError

    if file and not (folder := pathlib.Path(file).parent).is_dir():
        raise SettingError(option, file, f"cannot be written: there is no folder {folder}")
    if file and pathlib.Path(file).is_dir():
        raise SettingError(option, file, "is a folder; name a file")


def _require_split(known: argparse.Namespace) -> None:
    """Refuses what a folder of images cannot serve."""
    from afd_jax.errors import SettingError

    for option, value in (("--json", known.json), ("--per-class", known.per_class)):
        if value:
            remedy = "needs labels, which a folder of images has not; leave out one of the two"
            raise SettingError(option, value, remedy)
    for option, value in (("--split", known.split), ("--data-dir", known.data_dir)):
        if value is not None:
            remedy = "is of the run's data, which --images takes no images from; leave out one"
            raise SettingError(option, value, remedy)


def _require_node(known: argparse.Namespace) -> None:
    """Refuses a name that the run does not have, before anything is predicted."""
    import numpy as np

    from afd_jax.reports.analysis import ensembles
    from afd_jax.runs.predictions import node_roles
    from afd_jax.runs.trained import open_run

    roles = node_roles(open_run(known.workdir, trust=known.trust))
    _chosen({**roles, **ensembles(dict.fromkeys(roles, np.zeros(1)), roles)}, known.node)


def _write(file: str, content: Any) -> None:
    import json

    from afd_jax.errors import SettingError, first_line

    try:
        pathlib.Path(file).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        remedy = f"cannot be written ({error.strerror or first_line(error)})"
        raise SettingError("--json", file, remedy) from error


def program() -> int:
    """The installed command."""
    from afd_jax.speedups import use_huge_pages

    use_huge_pages()
    return main()
