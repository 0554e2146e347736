"""The objects of a run's folder in a bucket, and which of its files are whole."""

import hashlib
import pathlib
import re
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
        self.files.invalidate_cache()
        found = self.files.find(self.root, detail=True)
        sizes = {name[len(self.root) + 1 :]: int(info["size"]) for name, info in found.items()}
        sizes.pop("lock.json", None)
        return {name: size for name, size in sizes.items() if name and is_whole(name, sizes)}

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


def is_whole(name: str, names: Any) -> bool:
    """Whether a file may be taken: not one of a checkpoint that is not complete."""
    folder = _checkpoint_of(name)
    return folder is None or f"{folder}/{MARKER}" in names
