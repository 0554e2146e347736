"""Trains a study's missing runs and writes its results, tables and figures.

  python -m experiments.study NAME --hours 2 [--data-dir DIR]
  python -m experiments.study --list

experiments/results/NAME.json holds the finished runs, so any machine can continue from there; the
tables in docs/results.md are made from it. Ctrl-C saves the current run, and the same command
resumes it.
"""

import argparse
import math
import pathlib
import re
import sys

from afd_jax.commands.shared import guarded
from afd_jax.data.cache import keep_programs
from afd_jax.errors import Diverged, Interrupted, SettingError, UnreadableError
from experiments.study import figures, page, tables, tryout
from experiments.study.plan import NAMES, Study, load
from experiments.study.records import Results
from experiments.study.runner import (
    alone,
    forget_runs,
    missing,
    require_match,
    train_missing,
)

RESULTS = pathlib.Path(__file__).parents[1] / "results"


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    own = argparse.ArgumentParser(
        prog="python -m experiments.study",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = own.add_argument
    add("name", nargs="?", metavar="NAME", help=f"of the study: {', '.join(NAMES)}")
    add("--list", action="store_true", help="say what each study asks, and how much is done")
    add(
        "--hours",
        type=_amount,
        default=0.0,
        help="begin no run after this many hours; 0, the default, trains nothing",
    )
    add(
        "--only",
        type=_pattern,
        default="",
        metavar="REGEX",
        help='train only runs like "300 labels: AFD, seed 0"',
    )
    add("--part", type=_part, default=(1, 1), metavar="I/N", help="train the I-th of N shares")
    add("--seeds-at-once", type=_count, default=1, metavar="N", help="in one program, for GPUs")
    words = "first drop the results of a setting, and of those that learn from its networks"
    add("--forget", metavar="SETTING", help=words)
    add("--smoke", action="store_true", help="train the smoke form of each setting once, keep none")
    add(
        "--estimate",
        type=_amount,
        metavar="TFLOPS",
        help="print the hours on a device that sustains so much",
    )
    add("--data-dir", metavar="DIR", help="folder of TFDS data sets, for runs that read one")
    add(
        "--runs",
        type=pathlib.Path,
        default="runs/studies",
        metavar="DIR",
        help="of unfinished runs",
    )
    add("--results", type=pathlib.Path, default=RESULTS, metavar="DIR", help="of JSON and figures")
    return own


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number from 1")
    return int(text)


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number from 0")
    return value


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r}: no regular expression ({error})") from error
    return text


def _part(text: str) -> tuple[int, int]:
    words = text.split("/")
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r}: must be I/N, such as 1/4")
    which, of = map(int, words)
    if not 1 <= which <= of:
        raise argparse.ArgumentTypeError(f"{text!r}: must be one of 1/{of} to {of}/{of}")
    return which, of


def main(arguments: list[str]) -> int:
    """Runs a command line; returns the exit code."""
    asked = parser().parse_args(arguments)
    return guarded(lambda: _work(asked), continues=True)


def _work(asked: argparse.Namespace) -> int:
    if asked.list or not asked.name:
        for name in NAMES:
            print(_state(name, asked.results))
        return 0 if asked.list else 2
    study = load(asked.name)
    results = Results(asked.results / f"{asked.name}.json", study)
    require_match(study, asked.only)
    if asked.forget:
        _forget(asked, study, results)
    if asked.smoke:
        tryout.try_all(study, asked.data_dir, asked.only)
        return 0
    if asked.estimate:
        print(tryout.estimate(study, asked.estimate))
        return 0
    try:
        if asked.hours:
            _train(asked, study, results)
    except (Diverged, Interrupted, KeyboardInterrupt, OSError, UnreadableError):
        try:
            _report(asked, study, results)
        except (OSError, SettingError) as error:  # how the run ended counts more
            print(f"error: {error}", file=sys.stderr)
        raise
    _report(asked, study, results)
    return 0


def _forget(asked: argparse.Namespace, study: Study, results: Results) -> None:
    root = asked.runs / asked.name
    with alone(root, (1, 1)):
        for setting, count in results.forget(asked.forget).items():
            print(f"forgot {count} records of {setting!r}")
            forget_runs(study, setting, root)


def _state(name: str, folder: pathlib.Path) -> str:
    study = load(name)
    try:
        results = Results(folder / f"{name}.json", study)
        every = sum(len(block.settings) * len(block.seeds) for block in study.blocks)
        done = every - len(missing(study, results))
    except SettingError as error:  # results of other settings, say
        return f"{name:24}{error}"
    return f"{name:24}{done:>5} of {every:<5}{study.question}"


def _train(asked: argparse.Namespace, study: Study, results: Results) -> None:
    keep_programs()  # compiled once, they serve all seeds of a setting
    root = asked.runs / asked.name
    with alone(root, asked.part):
        train_missing(
            study,
            results,
            root,
            seconds=3600 * asked.hours,
            at_once=asked.seeds_at_once,
            part=asked.part,
            only=asked.only,
            data_dir=asked.data_dir,
        )


def _report(asked: argparse.Namespace, study: Study, results: Results) -> None:
    if not results.records:
        print("no results yet; --hours=H trains")
        return
    for block in study.blocks:
        if any(record["block"] == block.name for record in results.records):
            print(f"\n{tables.markdown(block, results)}")
    if study.claims:
        print(f"\n{tables.claims(study, results)}")
    figures.differences(study, results, asked.results / f"{asked.name}.svg")
    for n, block in enumerate(study.blocks):
        figures.similarity(block, results, asked.results / f"{asked.name}_similarity_{n}.svg")
    if asked.results.resolve() == RESULTS.resolve():
        page.fill()
