"""`afd-train`: trains a run, or says what it would cost."""

import argparse
import sys
import textwrap
from collections.abc import Iterable, Sequence

from afd_jax.commands.shared import guarded, require
from afd_jax.runs import processes
from afd_jax.runs.signals import leave_at_once

# Every run needs these, some only at its end.
_ALWAYS = ("PIL", "matplotlib", "tqdm")

_EPILOG = """\
examples:
  quick start, no download      %(prog)s --config=digits_afd --workdir=runs/digits
  a pair on CIFAR-100           %(prog)s --config=cifar100_afd:resnet32,resnet32 \\
                                  --workdir=runs/pair --config.data.data_dir=DIR
  any setting                   ... --config.seed=1 --config.duration='30 epochs'
  configs, methods, networks    %(prog)s --list

The same command again continues an interrupted run.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      arguments: what follows the program's name; sys.argv if None.

    Returns:
      0 when done, 1 if a loss is not finite or an image cannot be read, 2 for a setting that cannot
      work or an extra that is not installed, 75 if the run hangs or has lost another of its
      processes, 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(
        prog="afd-train",
        description="Train networks that teach each other (AFD and its relatives).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="NAME[:ARGS]", help="config, by its name or the path of a file"
    )
    parser.add_argument(
        "--workdir", metavar="DIR", help="folder of this run, also gs://... or s3://..."
    )
    parser.add_argument(
        "--dry-run",
        nargs="?",
        const="plan",
        choices=("plan", "timed"),
        help="print loss graph, all runs and costs; train nothing; =timed also times a step",
    )
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="run as one of several processes, started by SLURM, a TPU pod or by hand (JAX_*)",
    )
    parser.add_argument(
        "--list", action="store_true", help="print the names of configs, methods and networks"
    )
    known, overrides = parser.parse_known_args(_plain(arguments))
    if known.list:
        return guarded(_list)
    if not known.config:
        parser.error("--config: name a config; --list prints those that there are")
    if not known.dry_run and not known.workdir:
        parser.error("--workdir: name the folder of this run, or ask for --dry-run")

    return guarded(lambda: _run(known, overrides), continues=True)


def _plain(arguments: Sequence[str] | None) -> list[str]:
    """Says which dry run is meant: argparse takes a setting with a space in it for its value."""
    given = sys.argv[1:] if arguments is None else arguments
    return ["--dry-run=plan" if own == "--dry-run" else own for own in given]


def _run(known: argparse.Namespace, overrides: Sequence[str]) -> int:
    # Imports stand here so that --help answers at once.
    from afd_jax.data.cache import keep_programs
    from afd_jax.runs.overrides import read_config

    require(*_ALWAYS)
    config = read_config(known.config, overrides)
    if known.distributed:
        processes.join(config.parallel.heartbeat_timeout)
    keep_programs()
    if known.dry_run:
        from afd_jax.runs.bucket import at_hand
        from afd_jax.runs.dry_run import dry_run

        workdir = at_hand(known.workdir) if known.workdir else ""
        for text in dry_run(config, workdir, timed=known.dry_run == "timed"):
            print(text, flush=True)
        return 0
    from afd_jax.runs.trainer import train

    train(config, known.workdir)
    return 0


def _list() -> int:
    print(_names())
    return 0


def _names() -> str:
    """The configs with a line on each; methods and networks."""
    from afd_jax import methods, networks
    from afd_jax.runs.configs import list_configs

    configs = list_configs()
    width = max(map(len, configs))
    lines = [f"  {name:{width}}  {line}" for name, line in configs.items()]
    return "\n".join(
        [
            "configs (--config=NAME):",
            *lines,
            "",
            "methods (--config.method.name=NAME, or package.module:Class):",
            _wrapped(methods.NAMES),
            "",
            "networks (--config=CONFIG:NAME,NAME, or package.module:Class):",
            _wrapped(networks.NAMES),
        ]
    )


def _wrapped(names: Iterable[str]) -> str:
    # A hyphen in a name is no place to break.
    return textwrap.indent(textwrap.fill(", ".join(names), 98, break_on_hyphens=False), "  ")


def program() -> int:
    """The installed command."""
    from afd_jax.speedups import use_huge_pages

    if "--distributed" in sys.argv[1:] and not processes.is_worker():
        return processes.supervise()
    use_huge_pages()
    with leave_at_once(processes.orders()):
        return processes.left_together(main)
