"""`afd-report`: one HTML page of a run, or of several compared."""

import argparse
import os
import pathlib
from collections.abc import Sequence

from afd_jax.commands.shared import add_trust, guarded, require

_ALWAYS = ("jinja2", "matplotlib", "PIL")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: what follows the program's name; sys.argv if None.

    Returns:
      0 when the page is written, 1 if an image cannot be read or the page cannot be written, 2 for
      a folder without a run or an extra that is not installed.
    """
    parser = argparse.ArgumentParser(
        prog="afd-report",
        description="Write one HTML page of a run, or of several compared. The page works offline.",
        allow_abbrev=False,
    )
    path = os.path.expanduser  # as the rest of the package reads it
    parser.add_argument("workdir", nargs="+", type=path, help="folder of a run, finished or not")
    words = "the page; WORKDIR/report.html if left out"
    parser.add_argument("--to", metavar="FILE", type=path, help=words)
    parser.add_argument("--seed", type=int, help="whose predictions to show; the first by default")
    parser.add_argument(
        "--no-images", action="store_true", help="leave out what needs the data and a checkpoint"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where the data are now, if they moved")
    add_trust(parser)
    known = parser.parse_args(arguments)
    if len(known.workdir) > 1 and not known.to:
        parser.error("--to: name the file, as there are several runs")
    if "://" in known.workdir[0] and not known.to:
        parser.error("--to: name the file, as the run is in a bucket")
    if known.to and os.path.isdir(known.to):
        parser.error(f"--to: {known.to} is a folder; name a file")
    if len(known.workdir) > 1 or known.no_images:
        why = "--no-images shows none" if known.no_images else "a comparison shows none"
        for option, value in (("--seed", known.seed), ("--data-dir", known.data_dir)):
            if value is not None:
                parser.error(f"{option}: is for predictions, and {why}; leave it out")
    return guarded(lambda: _write(known))


def _write(known: argparse.Namespace) -> int:
    from afd_jax.data.cache import keep_programs
    from afd_jax.reports.page.html import page
    from afd_jax.runs.report import gather

    require(*_ALWAYS)
    keep_programs()
    several = len(known.workdir) > 1
    runs = gather(
        known.workdir,
        images=not known.no_images and not several,
        seed=known.seed,
        data_dir=known.data_dir,
        trust=known.trust,
    )
    file = pathlib.Path(known.to or pathlib.Path(known.workdir[0]) / "report.html")
    file.parent.mkdir(parents=True, exist_ok=True)
    content = page(runs).encode(errors="backslashreplace")  # names may be of another encoding
    file.write_bytes(content)
    print(f"written: {file} ({file.stat().st_size / 1e6:.1f} MB)")
    for run in runs:
        for sentence in run.missing:
            print(f"{run.name}: {sentence}")
    return 0
