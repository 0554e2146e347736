"""Turns between processes, also on other machines with the same files."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def held(file: pathlib.Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Waits until no other process holds the file, and holds it until the end.

    The file is made if need be, and opened to write: NFS locks nothing else for other machines.

    Args:
      file: stands for what is used.
      how: LOCK_EX, or LOCK_SH for several at once; with LOCK_NB, a BlockingIOError in place of
        waiting.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    number = os.open(file, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(number, how)
        yield
    finally:
        os.close(number)
