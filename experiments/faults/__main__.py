"""Does to small runs what goes wrong on real machines, and prints what happens.

  python -m experiments.faults [KIND ...] [--times 10] [--seed 0] [--data-dir DIR]

  kills        a run is killed with -9 at random moments, and the command given again
  signals      two signals at a random moment, 0 to 200 ms apart, and the command given again
  disks        a disk fills up or may no longer be written on, and later has room again (Linux)
  processes    one of two processes is killed, frozen or stopped, and the command given again
  damage       a file of a run is damaged, and the command given again
  checkpoints  a file of a checkpoint is damaged, and the networks are loaded
  settings     generated settings are checked
  losses       generated arrays and options go through every public loss
  files        generated files of images, some of them damaged, are read

With a folder of TFDS data sets, a run on CIFAR-100 is killed, too. A fault counts as survived when
no result is lost or wrong, and the program ends with at most a one-line message.
"""

import argparse
import collections
import logging
import pathlib
import random
import sys
import tempfile
from collections.abc import Callable, Iterator

from experiments.faults import calls, damage, disks, files, hosts, settings, stops
from experiments.faults.fuzz import fuzz
from experiments.faults.runs import RUNS, Small, on_cifar100

_Strike = Callable[[Small, pathlib.Path, pathlib.Path, random.Random], str | list[str]]
_STRUCK: dict[str, tuple[_Strike, tuple[Small, ...]]] = {
    "kills": (stops.killed, RUNS),
    "signals": (stops.told_twice, RUNS),
    "disks": (disks.disturbed, RUNS[:1]),
    "processes": (hosts.lost, (hosts.PAIR,)),
    "damage": (damage.damaged, RUNS[:1]),
    "checkpoints": (damage.loaded, RUNS[:1]),
}
_FUZZED = {
    "settings": (settings.overrides(), settings.judge),
    "losses": (calls.calls(), calls.judge),
    "files": (files.files(), files.judge),
}
_MOST_ATTEMPTS = 10  # for each that is asked for: a run that has ended cannot be killed
KINDS = (*_STRUCK, *_FUZZED)


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
    parser.add_argument("--data-dir", help="of TFDS data sets, with cifar100 among them")
    parser.add_argument("--run", help="only runs whose name holds this text")
    asked = parser.parse_args(arguments)
    if unknown := {*asked.kinds} - {*KINDS}:
        parser.error(f"{', '.join(sorted(unknown))}: choose from {', '.join(KINDS)}")
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax's, of files that were damaged
    stood = True
    print("| fault | of | times | what happened |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for kind in asked.kinds or KINDS:
            for what, outcomes in _of_kind(kind, asked, pathlib.Path(scratch)):
                stood &= not {*outcomes} - damage.GOOD
                words = "; ".join(f"{n} {outcome}" for outcome, n in outcomes.most_common())
                print(f"| {kind} | {what} | {outcomes.total()} | {words} |", flush=True)
    return 0 if stood else 1


def _of_kind(
    kind: str, asked: argparse.Namespace, scratch: pathlib.Path
) -> Iterator[tuple[str, collections.Counter[str]]]:
    if kind in _FUZZED:
        cases, judge = _FUZZED[kind]
        yield "generated cases", fuzz(cases, judge, asked.times, asked.seed)
        return
    strike, runs = _STRUCK[kind]
    if kind == "kills" and asked.data_dir:
        runs = (*runs, on_cifar100(asked.data_dir))
    for run in runs:
        if asked.run and asked.run not in run.name:
            continue
        whole = scratch / run.name.replace(" ", "_")
        if not (whole / "summary.json").is_file():
            code, errors = run.finish(whole)
            if code:
                raise SystemExit(f"{run.name} does not run: {errors}")
        draw = random.Random(f"{kind} {run.name} {asked.seed}")
        outcomes: collections.Counter[str] = collections.Counter()
        for _ in range(_MOST_ATTEMPTS * asked.times):
            found = strike(run, whole, scratch / "struck", draw)
            outcomes.update([found] if isinstance(found, str) else found)
            print(f"{kind}, {run.name}: {outcomes.total()} of {asked.times}", file=sys.stderr)
            if outcomes.total() >= asked.times:
                break
        else:
            raise SystemExit(f"{run.name}: ends before it can be killed; it needs a slower machine")
        yield run.name, outcomes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
