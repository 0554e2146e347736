"""Damage to the files of a run that was stopped; it must go on to the same end, or refuse."""

import pathlib
import random
import shutil
from collections.abc import Callable

from experiments.faults.runs import Small, same_end

GOOD = {"equal", "refused in a line"}
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


def damaged(run: Small, whole: pathlib.Path, workdir: pathlib.Path, draw: random.Random) -> str:
    """Damages one file of a finished run's folder, unfinishes it, and runs the command again.

    Returns:
      "equal", "refused in a line", or what went wrong with the file's name.
    """
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(whole, workdir)
    (workdir / "summary.json").unlink()
    files = sorted(p for p in workdir.rglob("*") if p.is_file() and p.name != "curves.png")
    file = draw.choice(files)
    way = draw.choice(sorted(_WAYS))
    content = _WAYS[way](file.read_bytes(), draw)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    name = f"{file.relative_to(workdir)} {way}"
    code, errors = run.finish(workdir)
    if code == 0:
        difference = same_end(whole, workdir)
        return f"another end ({name}): {difference}" if difference else "equal"
    if code == 2 and "Traceback" not in errors and errors.strip().count("\n") == 0:
        return "refused in a line"
    last = errors.strip().splitlines()[-1:] or ["no word"]
    return f"exit code {code} ({name}): {last[0][:100]}"
