"""Runs whose folder is in a bucket, "gs://bucket/run" or "s3://bucket/run".

A run works in a folder on this machine, and what it has written is copied to the bucket as soon as
it is whole: a checkpoint with the metrics that belong to it, its marker last. So a machine that is
lost leaves in the bucket what a killed run leaves on a disk. What could not be copied stays here,
and the next run on this machine continues from it. One process writes; several refuse.
"""

import contextlib
import json
import logging
import os
import pathlib
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from typing import Any

import jax

from afd_jax.data.cache import cache_dir
from afd_jax.errors import SettingError, StorageError, first_line
from afd_jax.runs.bucket_lock import BucketLock
from afd_jax.runs.bucket_store import MARKER, Store, is_whole
from afd_jax.runs.signals import ask_to_stop

_PERIOD = 5.0  # seconds between two looks at the folder
_logger = logging.getLogger("afd_jax")
_Files = dict[str, tuple[int, int]]
"""Sizes and times of change of files, by their names in a folder."""


def in_bucket(path: str | pathlib.Path) -> bool:
    """Whether a path is an address, "scheme://...", or was one: `pathlib` keeps one slash.

    >>> in_bucket("s3://bucket/run"), in_bucket(pathlib.Path("s3://bucket/run"))
    (True, True)
    >>> in_bucket("runs/s3:/run"), in_bucket("C:/run")
    (False, False)
    """
    return re.match(r"[A-Za-z][\w+.-]+:/", str(path)) is not None


def at_hand(path: str | pathlib.Path) -> pathlib.Path:
    """A folder to read: the path itself, or a copy on this machine of what is in a bucket.

    Raises:
      SettingError: for an address of another kind, or one that cannot be read.
    """
    if not in_bucket(path):
        return pathlib.Path(os.path.expanduser(path))
    store = Store(str(path))
    local = cache_dir("buckets", "read", store.digest)
    local.mkdir(parents=True, exist_ok=True)
    noted = _noted(local)
    with _named(store.url):
        versions = store.fetch(local, _read_json(noted))
    noted.write_text(json.dumps(versions))
    return local


@contextlib.contextmanager
def mirrored(url: str) -> Iterator[pathlib.Path]:
    """A folder on this machine that holds what is in the bucket, and is copied there.

    On leaving, what is missing in the bucket is copied, and the folder removed.

    Args:
      url: "gs://bucket/run" or "s3://bucket/run".

    Raises:
      SettingError: for an address of another kind, a bucket that cannot be reached, one that
        another program trains in, or several processes.
      StorageError: if the last copy fails; the folder stays. The message also says why the block
        ended, if that was an error.
    """
    if jax.process_count() > 1:
        remedy = f"a bucket takes one process, this run has {jax.process_count()}; give a folder "
        raise SettingError("--workdir", url, remedy + "that all of them share")
    store = Store(url)
    local = cache_dir("buckets", "write", store.digest)
    with contextlib.ExitStack() as stack:
        with _named(url):
            lock = stack.enter_context(BucketLock(store.files, f"{store.root}/lock.json", url))
            there = _ready(store, local)
        copier = _Copier(store, local, lock, there)
        ended = ""
        try:
            yield local
        except BaseException as error:
            ended = f"; before that, the run ended: {first_line(error)[:200]}"
            raise
        finally:
            copier.finish(ended)
            # Under another name: if this is cut short, half a folder must not count as the run.
            done = local.with_name(f"{local.name}_done")
            shutil.rmtree(done, ignore_errors=True)
            local.rename(done)
            _noted(local).unlink(missing_ok=True)
            shutil.rmtree(done, ignore_errors=True)


def _ready(store: Store, local: pathlib.Path) -> _Files:
    """Makes the folder hold what the run continues from; returns what of it is in the bucket."""
    there, own, known = store.names(), _whole_files(local), _read(_noted(local))
    as_left = all(
        any(size == files[name][0] for files in (known, own) if name in files)
        for name, size in there.items()
    )
    if own and as_left and (there or not known):  # not if somebody emptied the bucket
        # Nobody has written there since, so what is here is as new, or newer.
        same = (name for name, size in there.items() if known.get(name, (None,))[0] == size)
        return {name: known[name] for name in same}
    if own.items() - known.items():
        aside = local
        while aside.exists():
            aside = aside.with_name(f"{aside.name}_kept")
        local.rename(aside)
        words = "%s has changed since a run on this machine failed to copy all its files; "
        _logger.warning(words + "they are in %s", store.url, aside)
    shutil.rmtree(local, ignore_errors=True)
    local.mkdir(parents=True)
    store.fetch(local)
    return _whole_files(local)


def _noted(local: pathlib.Path) -> pathlib.Path:
    """The file that says which of its files are in the bucket, beside a folder."""
    return local.with_name(f"{local.name}.json")


def _read(noted: pathlib.Path) -> _Files:
    try:
        return {name: (size, time) for name, (size, time) in _read_json(noted).items()}
    except (ValueError, TypeError):
        return {}


def _read_json(noted: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(noted.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _whole_files(local: pathlib.Path) -> _Files:
    """The files of a folder that are whole."""
    found = {}
    for file in local.rglob("*"):
        name = file.relative_to(local).as_posix()
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            if file.is_file() and file.name != ".lock" and ".orbax-checkpoint-tmp" not in name:
                status = file.stat()
                found[name] = status.st_size, status.st_mtime_ns
    return {name: status for name, status in found.items() if is_whole(name, found)}


@contextlib.contextmanager
def _named(url: str) -> Iterator[None]:
    """Errors of the storage library, as one line."""
    try:
        yield
    except (SettingError, StorageError):
        raise
    except Exception as error:  # of many kinds
        remedy = f"cannot be reached ({first_line(error)[:200]})"
        raise SettingError("--workdir", url, remedy) from error


class _Copier:
    """Copies a folder to a bucket while a run writes it.

    Args:
      store: the bucket.
      local: the folder.
      lock: on the bucket; if it is lost, the run is stopped.
      there: what of the folder is in the bucket.
    """

    def __init__(self, store: Store, local: pathlib.Path, lock: BucketLock, there: _Files):
        self._store, self._local, self._lock, self._there = store, local, lock, there
        self._note()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="bucket", daemon=True)
        self._thread.start()

    def finish(self, ended: str) -> None:
        """Copies what is missing.

        Args:
          ended: why the run ended, for the message.

        Raises:
          StorageError: if that fails.
        """
        self._done.set()
        self._thread.join()
        try:
            self._lock.require()
            self._copy()
        except Exception as error:  # the library's own, of many kinds
            words = f"{self._store.url}: cannot be written ({first_line(error)[:200]}); what is "
            raise StorageError(f"{words}missing there is in {self._local}{ended}") from error

    def _watch(self) -> None:
        said = False
        while not self._done.wait(_PERIOD):
            try:
                self._lock.check()
                self._copy()
                said = False
            except StorageError as error:  # somebody else has it
                _logger.error("%s", error)
                if not ask_to_stop():
                    os.kill(os.getpid(), signal.SIGTERM)
                return
            except Exception as error:  # the network, perhaps: it is tried again
                if not said:
                    words = "cannot copy to %s (%s); trying again"
                    _logger.warning(words, self._store.url, first_line(error)[:200])
                said = True

    def _copy(self) -> None:
        """Copies what is new, and removes what is gone: a checkpoint's marker last, and first."""
        found, before = _whole_files(self._local), dict(self._there)
        try:
            for name in sorted(found, key=_order):
                if self._there.get(name) != found[name]:
                    self._lock.check()  # it may be lost while a large file is copied
                    try:
                        self._store.put(self._local, name)
                    except FileNotFoundError:
                        if (self._local / name).exists():  # then it is the bucket that is gone
                            raise
                        continue  # an old checkpoint, just removed
                    self._there[name] = found[name]
            for name in sorted(self._there.keys() - found.keys(), key=_order, reverse=True):
                self._lock.check()
                with contextlib.suppress(FileNotFoundError):
                    self._store.remove(name)
                del self._there[name]
        finally:
            if self._there != before:
                self._note()

    def _note(self) -> None:
        _noted(self._local).write_text(json.dumps(self._there))


def _order(name: str) -> tuple[int, str]:
    """The summary says that a run is finished, a marker that a checkpoint is whole."""
    last = name.rpartition("/")[2]
    return {MARKER: 1, "summary.json": 2}.get(last, 0), name
