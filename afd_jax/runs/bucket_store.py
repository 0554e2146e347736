"""The objects of a run's folder in a bucket, and which of its files are whole."""

import contextlib
import hashlib
import pathlib
import re
import tempfile
from collections.abc import Mapping
from typing import Any

from afd_jax.data.extra import need
from afd_jax.errors import SettingError

_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}  # by scheme; and the extra
MARKER = "_CHECKPOINT_METADATA"  # Orbax's own; without it a checkpoint is not whole


class Store:
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
        found = self._found()
        return {name: int(info["size"]) for name, info in found.items() if is_whole(name, found)}

    def _found(self) -> dict[str, dict[str, Any]]:
        self.files.invalidate_cache()
        found = self.files.find(self.root, detail=True)
        named = {name[len(self.root) + 1 :]: info for name, info in found.items()}
        return {name: info for name, info in named.items() if name not in ("", "lock.json")}

    def fetch(self, local: pathlib.Path, held: Mapping[str, str] | None = None) -> dict[str, str]:
        """Makes a folder hold what is in the bucket, and nothing else.

        Another program may read there, or fetch, too: each file is there whole all the time.

        Args:
          local: the folder.
          held: versions of files that are there, as an earlier call returned them.

        Returns:
          Versions of the files, by name.
        """
        found, held = self._found(), held or {}
        wanted = {name: _version(found[name]) for name in found if is_whole(name, found)}
        for path in sorted(local.rglob("*"), reverse=True):
            if path.relative_to(local).as_posix() not in wanted:
                with contextlib.suppress(OSError):  # a folder with something in it, say
                    path.rmdir() if path.is_dir() else path.unlink()
        with tempfile.TemporaryDirectory(prefix="fetched-", dir=local.parent) as aside:
            whole = pathlib.Path(aside, "file")
            for name, version in wanted.items():
                file = local / name
                if not version or held.get(name) != version or not file.exists():
                    self.files.get_file(f"{self.root}/{name}", str(whole))
                    file.parent.mkdir(parents=True, exist_ok=True)
                    whole.replace(file)
        return wanted

    def put(self, local: pathlib.Path, name: str) -> None:
        """Copies a file to the bucket."""
        self.files.put_file(str(local / name), f"{self.root}/{name}")

    def remove(self, name: str) -> None:
        """Removes an object."""
        self.files.rm_file(f"{self.root}/{name}")


def _version(info: Mapping[str, Any]) -> str:
    """What changes when an object is written anew; "" if the store does not say."""
    stamps = ("ETag", "etag", "generation", "LastModified", "updated", "created")
    return " ".join(str(info[stamp]) for stamp in stamps if info.get(stamp))


def _checkpoint_of(name: str) -> str | None:
    """The folder of a checkpoint that a file belongs to.

    >>> _checkpoint_of("teacher_0/checkpoints/40/state/d/a"), _checkpoint_of("config.json")
    ('teacher_0/checkpoints/40', None)
    """
    match = re.match(r"((?:.*/)?checkpoints/[^/]+)/", name)
    return match[1] if match else None


def is_whole(name: str, names: Any) -> bool:
    """Whether a file may be taken: not one of a checkpoint that is not complete."""
    folder = _checkpoint_of(name)
    return folder is None or f"{folder}/{MARKER}" in names
