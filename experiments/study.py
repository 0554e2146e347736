"""Trains what a study lacks, and writes its table, figure and results.

  python -m experiments.study NAME --hours 2 [--data-dir DIR]
  python -m experiments.study --list

Results are in experiments/results/NAME.json, which is also the list of what is done: commit it, and
any machine goes on from there. Ctrl-C saves the run at hand; the same command continues it.
"""

import argparse
import pathlib
import sys

import jax

from afd_jax.data.cache import cache_dir
from afd_jax.errors import SettingError
from afd_jax.runs.metrics import Diverged
from afd_jax.runs.trainer import Interrupted
from experiments.studies import NAMES, load
from experiments.studies.records import Results
from experiments.studies.runner import alone, train_missing

RESULTS = pathlib.Path(__file__).parent / "results"


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    own = argparse.ArgumentParser(
        prog="python -m experiments.study",
        description=__doc__.partition("\n")[0],
        epilog=f"studies: {', '.join(NAMES)}",
    )
    own.add_argument("name", nargs="?", metavar="NAME", help="of the study")
    own.add_argument("--list", action="store_true", help="say what each study asks, and what it lacks")
    own.add_argument("--hours", type=float, default=0.0, help="begin no run later than this (0: none)")
    own.add_argument("--block", default="", help="train only the blocks with this in their name")
    own.add_argument("--part", type=_part, default=(1, 1), metavar="I/N", help="train one of N shares")
    own.add_argument("--seeds-at-once", type=int, default=1, metavar="N", help="in one program")
    own.add_argument("--forget", metavar="SETTING", help="drop the results of a setting first")
    own.add_argument("--runs", type=pathlib.Path, default="runs/studies", help="folder of the runs")
    own.add_argument("--results", type=pathlib.Path, default=RESULTS, help="folder of the results")
    return own


def _part(text: str) -> tuple[int, int]:
    which, of = (int(word) for word in text.split("/"))
    if not 1 <= which <= of:
        raise ValueError
    return which, of


def main(arguments: list[str]) -> int:
    """Runs a command line; returns the exit code."""
    asked = parser().parse_args(arguments)
    if asked.list or not asked.name:
        for name in NAMES:
            study = load(name)
            print(f"{name:24}{study.question}")
        return 0 if asked.list else 2
    try:
        study = load(asked.name)
        results = Results(asked.results / f"{asked.name}.json", study)
        if asked.forget:
            print(f"forgot {results.forget(asked.forget)} records of {asked.forget!r}")
        if asked.hours:
            _train(asked, study, results)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Diverged as error:
        print(f"diverged: {error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        print(f"{error}; the same command continues")
        return 130
    return 0


def _train(asked: argparse.Namespace, study: object, results: Results) -> None:
    root = asked.runs / asked.name
    _keep_programs()
    with alone(root, asked.part):
        train_missing(
            study,
            results,
            root,
            seconds=3600 * asked.hours,
            at_once=asked.seeds_at_once,
            part=asked.part,
            blocks=asked.block,
        )


def _keep_programs() -> None:
    """Programs compiled once serve all seeds of a setting."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir("xla")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
