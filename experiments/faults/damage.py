"""Damage to the files of a run that was stopped; it must go on to the same end, or refuse."""

import functools
import logging
import pathlib
import random
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from afd_jax.errors import SettingError
from afd_jax.runs.trained import load
from afd_jax.runs.workdir import Workdir, read_json
from experiments.faults.fuzz import refusal
from experiments.faults.runs import Small, said, same_end

GOOD = {"equal", "accepted", "refused in a line", "the one before, with a warning"}
"""Outcomes that nobody needs to fear."""

_WAYS: dict[str, Callable[[bytes, random.Random], bytes | None]] = {
    "emptied": lambda content, draw: b"",
    "cut off": lambda content, draw: content[: draw.randrange(len(content) + 1)],
    "overwritten": lambda content, draw: draw.randbytes(len(content)),
    "one bit": lambda content, draw: _flipped(content, draw),
    "removed": lambda content, draw: None,
}


def _flipped(content: bytes, draw: random.Random) -> bytes:
    if not content:
        return content
    place = draw.randrange(len(content))
    changed = content[place] ^ 1 << draw.randrange(8)
    return content[:place] + bytes([changed]) + content[place + 1 :]


def _damage(folder: pathlib.Path, draw: random.Random) -> str:
    """Damages one file, and says which and how."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "curves.png")
    file = draw.choice(files)
    way = draw.choice(sorted(_WAYS))
    content = _WAYS[way](file.read_bytes(), draw)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    return f"{file.relative_to(folder)} {way}"


def damaged(run: Small, whole: pathlib.Path, workdir: pathlib.Path, draw: random.Random) -> str:
    """Damages one file of a finished run's folder, unfinishes it, and runs the command again.

    Returns:
      "equal", "refused in a line", or what went wrong with the file's name.
    """
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(whole, workdir)
    (workdir / "summary.json").unlink()
    name = _damage(workdir, draw)
    code, errors = run.finish(workdir)
    if code == 0:
        difference = same_end(whole, workdir)
        return f"another end ({name}): {difference}" if difference else "equal"
    if code == 2 and "Traceback" not in errors and errors.strip().count("\n") == 0:
        return "refused in a line"
    return f"exit code {code} ({name}): {said(errors)}"


@functools.cache
def _undamaged(whole: pathlib.Path) -> tuple[str, dict[str, Any]]:
    """The first network's name and variables."""
    node = read_json(Workdir(whole).graph)["nodes"][0]["name"]
    return node, load(whole, node, trust=True).variables


def loaded(run: Small, whole: pathlib.Path, workdir: pathlib.Path, draw: random.Random) -> str:
    """Damages one file of a checkpoint and loads a network; arguments as of `damaged`."""
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(whole, workdir)
    node, own = _undamaged(whole)
    name = _damage(workdir / "checkpoints", draw)
    said: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = said.append  # type: ignore[method-assign]
    logging.getLogger("afd_jax").addHandler(handler)
    try:
        found = load(workdir, node, trust=True).variables
    except SettingError as error:
        return refusal(error, (SettingError,), name)
    except Exception as error:
        return f"{type(error).__name__} ({name}): {str(error)[:100]}"
    finally:
        logging.getLogger("afd_jax").removeHandler(handler)
    if jax.tree.all(jax.tree.map(np.array_equal, own, found)):
        return "equal"
    return "the one before, with a warning" if said else f"other arrays, in silence ({name})"
