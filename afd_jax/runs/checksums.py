"""Checksums: a checkpoint whose stored values have changed is noticed, as Orbax does not.

CRC-32, as storage uses: it finds every single wrong bit, and by chance misses one of 4e9 others.
"""

import json
import zlib
from typing import Any

import jax
import numpy as np


def of_arrays(tree: Any, at: str = "") -> dict[str, str]:
    """Returns a checksum for each array, by path: {"networks/a/params/network/...": "0c3a91f2"}.

    Args:
      tree: of arrays; fetched from their devices.
      at: path of the tree itself, "networks/a/params/network/".
    """
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {
        at + jax.tree_util.keystr(path, simple=True, separator="/"): _crc32(_bytes(leaf))
        for path, leaf in leaves
    }


def require_same(noted: dict[str, str], found: dict[str, str]) -> None:
    """Raises ValueError that names the first array found whose checksum is not the noted one."""
    for path, checksum in found.items():
        if noted.get(path) != checksum:
            raise ValueError(f"{path} has changed since it was saved")


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """Returns JSON values with a checksum of their own, for `require_whole`."""
    return {**record, "checksum": _of_json(record)}


def require_whole(record: dict[str, Any]) -> None:
    """Raises ValueError if a sealed record has changed; takes those of before there were seals."""
    content = {key: value for key, value in record.items() if key != "checksum"}
    if "checksum" in record and record["checksum"] != _of_json(content):
        raise ValueError("its notes have changed since they were saved")


def _of_json(record: dict[str, Any]) -> str:
    return _crc32(json.dumps(record, sort_keys=True).encode())


def _bytes(leaf: Any) -> Any:
    return np.ascontiguousarray(leaf).reshape(-1).view(np.uint8)


def _crc32(content: Any) -> str:
    return f"{zlib.crc32(content):08x}"
