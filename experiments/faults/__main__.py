"""Does to small runs what goes wrong on real machines, and prints what happens.

  python -m experiments.faults [KIND ...] [--times 10] [--seed 0]

A fault counts as stood when no result is lost or wrong and nothing but a line is said.
"""

import argparse
import collections
import pathlib
import random
import sys
import tempfile
from collections.abc import Callable, Iterator

from experiments.faults import damage, stops
from experiments.faults.runs import RUNS, Small

_STOPS = {"kills": stops.killed, "signals": stops.told_twice}
KINDS = (*_STOPS, "damage")


def main(arguments: list[str]) -> int:
    """Runs a command line; returns 1 if a fault was not stood."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--times", type=int, default=10, help="of each kind and run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the damage")
    asked = parser.parse_args(arguments)
    if unknown := {*asked.kinds} - {*KINDS}:
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(KINDS)}")
    stood = True
    print("| fault | run | times | what happened |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for kind in asked.kinds or KINDS:
            for run in RUNS if kind in _STOPS else RUNS[:1]:
                outcomes = collections.Counter(
                    _outcomes(kind, run, pathlib.Path(scratch), asked.times, asked.seed)
                )
                stood &= not {*outcomes} - damage.GOOD
                words = "; ".join(f"{n} {outcome}" for outcome, n in outcomes.most_common())
                print(f"| {kind} | {run.name} | {outcomes.total()} | {words} |", flush=True)
    return 0 if stood else 1


def _outcomes(kind: str, run: Small, scratch: pathlib.Path, times: int, seed: int) -> Iterator[str]:
    whole = scratch / run.name.replace(" ", "_")
    if not (whole / "summary.json").is_file():
        code, errors = run.finish(whole)
        if code:
            raise SystemExit(f"{run.name} does not run: {errors}")
    draw = random.Random(f"{kind} {run.name} {seed}")
    once: Callable[[Small, pathlib.Path, pathlib.Path, random.Random], str]
    once = _STOPS.get(kind, damage.damaged)
    for _ in range(times):
        yield once(run, whole, scratch / "struck", draw)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
