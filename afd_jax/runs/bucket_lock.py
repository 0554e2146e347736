"""One program at a time in a folder of a bucket.

The lock is an object that can only be created once. A thread of its holder writes it anew every
few seconds, however long copies take; one that stands still belongs to a program that was killed,
and is taken over. No clocks are compared: whoever waits looks whether it changes.
"""

import json
import os
import socket
import threading
import time
import uuid
from typing import Any

from afd_jax.errors import SettingError, StorageError

_RENEWED = 10.0  # seconds
_STILL = 45.0  # seconds after which a lock that does not change is nobody's


class BucketLock:
    """Holds the lock inside a `with`.

    Args:
      files: of fsspec.
      path: of the lock's object.
      url: of the folder, for messages.

    Raises:
      SettingError: on entering, if another program holds it.
    """

    def __init__(self, files: Any, path: str, url: str):
        self._files, self._path, self._url = files, path, url
        self._own = {"host": socket.gethostname(), "pid": os.getpid(), "id": uuid.uuid4().hex}
        self._own["machine"] = _machine()
        self._beat = 0
        self._lost: StorageError | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="bucket lock", daemon=True)

    def __enter__(self) -> "BucketLock":
        if not self._created():
            self._take_over()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        try:
            if self._is_own(self._content()):
                self._files.rm_file(self._path)
        except Exception:  # then it stands still, and the next one takes it over
            pass

    def check(self) -> None:
        """Raises StorageError if it was lost when it was last renewed."""
        if self._lost:
            raise self._lost

    def require(self) -> None:
        """Raises StorageError if it is lost: another program has it, or had it."""
        content = self._content()
        if content is None:
            words = "its lock.json is gone; another program may have taken it over and left again"
            raise StorageError(f"{self._url}: {words}")
        if not self._is_own(content):
            words = f"{self._url}: another program took it over, {_holder(content)}"
            raise StorageError(words)

    def _keep(self) -> None:
        while not self._done.wait(_RENEWED):
            try:
                self.require()
                self._beat += 1
                self._files.pipe_file(self._path, self._text())
            except StorageError as error:
                self._lost = error
                return
            except Exception:  # the network, perhaps: it is tried again
                pass

    def _take_over(self) -> None:
        begin, before = time.monotonic(), self._content()
        while before is not None and not self._is_dead(before):
            if time.monotonic() - begin > _STILL:
                break
            time.sleep(1)
            if (now := self._content()) != before:
                if now is None:
                    break
                remedy = f"another program trains in this folder ({_holder(now)}); wait for it, or "
                raise SettingError("--workdir", self._url, remedy + "name another one")
        if before is not None and self._content() == before:
            self._files.rm_file(self._path)
        if not self._created():
            remedy = "another program trains in this folder; wait for it, or name another one"
            raise SettingError("--workdir", self._url, remedy)

    def _is_dead(self, content: bytes) -> bool:
        """Whether its holder was a program of this machine that is gone."""
        holder = _read(content)
        if not _machine() or holder.get("machine") != _machine():
            return False
        try:
            os.kill(int(holder.get("pid", -1)), 0)
        except ProcessLookupError:
            return True
        except (OSError, TypeError, ValueError, OverflowError):
            return False
        return False

    def _created(self) -> bool:
        try:
            self._files.pipe_file(self._path, self._text(), mode="create")
        except FileExistsError:
            return False
        return True

    def _content(self) -> bytes | None:
        self._files.invalidate_cache()
        try:
            content: bytes = self._files.cat_file(self._path)
        except FileNotFoundError:
            return None
        return content

    def _text(self) -> bytes:
        return json.dumps({**self._own, "beat": self._beat}).encode()

    def _is_own(self, content: bytes | None) -> bool:
        return content is not None and _read(content).get("id") == self._own["id"]


def _machine() -> str:
    """What this start of the machine and its space of process numbers share; "" if unknown.

    Containers may have one name, and each its own process 1.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _read(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _holder(content: bytes) -> str:
    found = _read(content)
    return f"process {found.get('pid')} of {found.get('host')}"
