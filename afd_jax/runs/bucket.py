"""Runs whose folder is in a bucket, "gs://bucket/run" or "s3://bucket/run".

A run works in a folder on this machine, and what it has written is copied to the bucket as soon as
it is whole: a checkpoint with the metrics that belong to it, its marker last. So a machine that is
lost leaves in the bucket what a killed run leaves on a disk. One process writes; several refuse.
"""

import contextlib
import hashlib
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
from afd_jax.data.extra import need
from afd_jax.errors import SettingError, StorageError, first_line
from afd_jax.runs.bucket_lock import BucketLock

_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}  # by scheme; and the extra
_MARKER = "_CHECKPOINT_METADATA"  # Orbax's own; without it a checkpoint is not whole
_PERIOD = 5.0  # seconds between two looks at the folder
_logger = logging.getLogger("afd_jax")


def in_bucket(path: str | pathlib.Path) -> bool:
    """Whether a path is an address, "scheme://...".

    >>> in_bucket("s3://bucket/run"), in_bucket("runs/s3:/run")
    (True, False)
    """
    return re.match(r"[A-Za-z][\w+.-]*://", str(path)) is not None


def at_hand(path: str | pathlib.Path) -> pathlib.Path:
    """A folder to read: the path itself, or a copy on this machine of what is in a bucket.

    Raises:
      SettingError: for an address of another kind, or one that cannot be read.
    """
    if not in_bucket(path):
        return pathlib.Path(path)
    store = _Store(str(path))
    local = cache_dir("buckets", "read", store.digest)
    local.mkdir(parents=True, exist_ok=True)
    with _named(store.url):
        store.fetch(local)
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
      StorageError: if the last copy fails; the folder stays.
    """
    if jax.process_count() > 1:
        remedy = f"a bucket takes one process, this run has {jax.process_count()}; give a folder "
        raise SettingError("--workdir", url, remedy + "that all of them share")
    store = _Store(url)
    local = cache_dir("buckets", "write", store.digest)
    with contextlib.ExitStack() as stack:
        with _named(url):
            lock = stack.enter_context(BucketLock(store.files, f"{store.root}/lock.json", url))
            shutil.rmtree(local, ignore_errors=True)
            local.mkdir(parents=True)
            store.fetch(local)
        copier = _Copier(store, local, lock)
        try:
            yield local
        finally:
            copier.finish()
            shutil.rmtree(local, ignore_errors=True)


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


class _Store:
    """What is in a bucket below an address.

    Args:
      url: "gs://bucket/run" or "s3://bucket/run".

    Attributes:
      url: without a slash at its end.
      files: of fsspec.
      root: the address as `files` takes it.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        scheme, _, rest = self.url.partition("://")
        if scheme not in _PACKAGES:
            remedy = "must be a folder, or an address that begins with "
            raise SettingError("--workdir", url, remedy + " or ".join(f"{s}://" for s in _PACKAGES))
        if not re.fullmatch(r"[^/]+/.+", rest):
            raise SettingError(
                "--workdir", url, f"name a folder in a bucket, {scheme}://bucket/run"
            )
        package, extra = _PACKAGES[scheme]
        need(package, "--workdir", url, extra)
        import fsspec

        self.files, self.root = fsspec.url_to_fs(self.url, skip_instance_cache=True)

    @property
    def digest(self) -> str:
        """A name for folders of this address."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:24]

    def names(self) -> dict[str, int]:
        """Sizes of all objects, by their names below the address; checkpoints that are whole."""
        self.files.invalidate_cache()
        found = self.files.find(self.root, detail=True)
        sizes = {name[len(self.root) + 1 :]: int(info["size"]) for name, info in found.items()}
        sizes.pop("lock.json", None)
        return {name: size for name, size in sizes.items() if name and _is_whole(name, sizes)}

    def fetch(self, local: pathlib.Path) -> None:
        """Makes a folder hold what is in the bucket, and nothing else."""
        wanted = self.names()
        for file in [p for p in local.rglob("*") if p.is_file()]:
            name = file.relative_to(local).as_posix()
            # Checkpoints do not change; other files may, at the same size.
            if wanted.get(name) != file.stat().st_size or "checkpoints/" not in name:
                file.unlink()
        for folder in sorted((p for p in local.rglob("*") if p.is_dir()), reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()
        for name in wanted:
            file = local / name
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                self.files.get_file(f"{self.root}/{name}", str(file))

    def put(self, local: pathlib.Path, name: str) -> None:
        """Copies a file to the bucket."""
        self.files.put_file(str(local / name), f"{self.root}/{name}")

    def remove(self, name: str) -> None:
        """Removes an object."""
        self.files.rm_file(f"{self.root}/{name}")


def _checkpoint_of(name: str) -> str | None:
    """The folder of a checkpoint that a file belongs to.

    >>> _checkpoint_of("teacher_0/checkpoints/40/state/d/a"), _checkpoint_of("config.json")
    ('teacher_0/checkpoints/40', None)
    """
    match = re.match(r"((?:.*/)?checkpoints/[^/]+)/", name)
    return match[1] if match else None


def _is_whole(name: str, names: Any) -> bool:
    folder = _checkpoint_of(name)
    return folder is None or f"{folder}/{_MARKER}" in names


class _Copier:
    """Copies a folder to a bucket while a run writes it.

    Args:
      store: the bucket.
      local: the folder; it holds what is in the bucket.
      lock: on the bucket; if it is lost, the run is stopped.
    """

    def __init__(self, store: _Store, local: pathlib.Path, lock: BucketLock):
        self._store, self._local, self._lock = store, local, lock
        self._there = self._files()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="bucket", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Copies what is missing.

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
            raise StorageError(f"{words}missing there is in {self._local}") from error

    def _watch(self) -> None:
        said = False
        while not self._done.wait(_PERIOD):
            try:
                self._lock.renew()
                self._copy()
                said = False
            except StorageError as error:  # somebody else has it
                _logger.error("%s", error)
                os.kill(os.getpid(), signal.SIGTERM)
                return
            except Exception as error:  # the network, perhaps: it is tried again
                if not said:
                    words = "cannot copy to %s (%s); trying again"
                    _logger.warning(words, self._store.url, first_line(error)[:200])
                said = True

    def _files(self) -> dict[str, tuple[int, int]]:
        """Sizes and times of the files that are whole, by name."""
        found = {}
        for file in self._local.rglob("*"):
            name = file.relative_to(self._local).as_posix()
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                if file.is_file() and ".orbax-checkpoint-tmp" not in name:
                    status = file.stat()
                    found[name] = status.st_size, status.st_mtime_ns
        return {name: status for name, status in found.items() if _is_whole(name, found)}

    def _copy(self) -> None:
        """Copies what is new, and removes what is gone: a checkpoint's marker last, and first."""
        found = self._files()
        for name in sorted(found, key=_order):
            if self._there.get(name) != found[name]:
                try:
                    self._store.put(self._local, name)
                except FileNotFoundError:  # an old checkpoint, just removed
                    continue
                self._there[name] = found[name]
        for name in sorted(self._there.keys() - found.keys(), key=_order, reverse=True):
            with contextlib.suppress(FileNotFoundError):
                self._store.remove(name)
            del self._there[name]


def _order(name: str) -> tuple[int, str]:
    """The summary says that a run is finished, a marker that a checkpoint is whole."""
    last = name.rpartition("/")[2]
    return {_MARKER: 1, "summary.json": 2}.get(last, 0), name
