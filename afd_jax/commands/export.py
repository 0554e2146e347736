"""`afd-export`: one trained network in files that need no afd_jax."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from afd_jax.commands.shared import add_trust, guarded, require

_NEEDS = {
    "safetensors": ("safetensors",),
    "stablehlo": ("flatbuffers",),
    "onnx": ("jax2onnx", "onnxruntime"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: what follows the program's name; sys.argv if None.

    Returns:
      0 when done, 1 if a file does not give the network's numbers, 2 for a setting that cannot work
      or an extra that is not installed.
    """
    parser = argparse.ArgumentParser(
        prog="afd-export",
        description="Write one trained network as safetensors, StableHLO or ONNX, and check it.",
        allow_abbrev=False,
    )
    parser.add_argument("workdir", metavar="WORKDIR", help="folder of a run, finished or not")
    parser.add_argument("--network", metavar="NAME", help="node; may be left out if there is one")
    words = "new folder for the files"
    parser.add_argument("--to", metavar="DIR", type=os.path.expanduser, required=True, help=words)
    parser.add_argument("--seed", type=int, metavar="N", help="which seed; the first by default")
    parser.add_argument(
        "--formats",
        default="safetensors,stablehlo",
        metavar="LIST",
        help=f"one or more of {','.join(_NEEDS)}, separated by commas; %(default)s by default",
    )
    parser.add_argument("--force", action="store_true", help="write into a folder with other files")
    add_trust(parser)
    known = parser.parse_args(arguments)
    return guarded(lambda: _export(known))


def _export(known: argparse.Namespace) -> int:
    formats = [*dict.fromkeys(known.formats.split(","))]
    for kind in formats:
        require(*_NEEDS.get(kind, ()))
    from afd_jax.data.cache import keep_programs
    from afd_jax.exports.folder import export
    from afd_jax.exports.write import WrongOutputsError

    keep_programs()
    try:
        files = export(
            known.workdir,
            known.to,
            node=known.network,
            seed=known.seed,
            formats=formats,
            force=known.force,
            trust=known.trust,
        )
    except WrongOutputsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(_table(files))
    print(f"written: {known.to}/ with README.md, architecture.json, settings.json, reference.npz")
    return 0


def _table(files: dict[str, dict[str, Any]]) -> str:
    lines = [f"{'file':20}{'bytes':>12}{'difference':>14}{'batch of 1':>13}{'batch of 32':>13}"]
    for file in files.values():
        difference = file["difference"]
        shown = "not compared" if difference is None else f"{difference:.1e}"
        times = [file["milliseconds"].get(size) for size in ("1", "32")]
        each = [f"{'' if t is None else f'{t:.2f} ms':>13}" for t in times]
        lines.append(f"{file['file']:20}{file['bytes']:12,}{shown:>14}{''.join(each)}")
    return "\n".join(lines)
