"""Tables of encoded images: Parquet files, and folders that Hugging Face `datasets` has saved.

`DIR/train*.parquet` and `DIR/test*.parquet` (or `validation*`, or else `val*`, for `test*`); or a
folder of `DatasetDict.save_to_disk`, with Arrow files in `DIR/train` and `DIR/test`, or one of
`Dataset.save_to_disk`, of which state.json names the files. Without a test part, a fifth of each
class is kept for the test, the same as long as the files stay as they are. The column "image", or
the only one of its kind, holds encoded files, as bytes or as {"bytes": ...}; "label", or the only
column of whole numbers, the classes from 0, named in the metadata of `datasets` if there are any.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from afd_jax.data.encoded import Encoded, with_test
from afd_jax.data.extra import need
from afd_jax.errors import SettingError, first_line

_TESTS = ("test", "validation", "val")
_FIELD = "data.data_dir"


@dataclasses.dataclass(frozen=True)
class Table:
    """Random access to the rows of Parquet or Arrow files.

    Arrow files are mapped into memory, so that only what is asked for is read. Each process opens
    them for itself.

    Attributes:
      files: in order, all Parquet or all Arrow.
    """

    files: tuple[str, ...]

    def __getitem__(self, row: int) -> Mapping[str, Any]:
        images, labels = self._columns
        image = images[row].as_py()
        content = image["bytes"] if isinstance(image, dict) else image
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        name = f"row {row} of {self.files[0]}{more}"
        if not content:
            raise ValueError(f"{name} (holds no bytes of an image)")
        return {"image": content, "label": labels[row].as_py(), "file": name}

    @property
    def labels(self) -> np.ndarray:
        """[examples], int64; -1 where there is none."""
        return self._columns[1].cast("int64").fill_null(-1).to_numpy()

    @property
    def class_names(self) -> tuple[str, ...]:
        """From the metadata of `datasets`; none if it says nothing.

        Raises:
          ValueError: if files name the classes differently.
        """
        each = {}
        for file, table in zip(self.files, self._tables, strict=True):
            metadata = (table.schema.metadata or {}).get(b"huggingface", b"{}")
            features = json.loads(metadata).get("info", {}).get("features", {})
            each[tuple(features.get(self._names[1], {}).get("names") or ())] = file
        if len(each) > 1:
            raise ValueError(f"{' and '.join(each.values())} name the classes differently")
        (names,) = each
        return names

    @property
    def _columns(self) -> tuple[Any, Any]:
        image, label = self._names
        return self._table[image], self._table[label]

    @functools.cached_property
    def _names(self) -> tuple[str, str]:
        """Of the columns with images and labels."""
        types = need("pyarrow.types", "data.name", "parquet", "parquet")

        def encoded(kind: Any) -> bool:
            if types.is_struct(kind):
                return any(f.name == "bytes" and encoded(f.type) for f in kind)
            return types.is_binary(kind) or types.is_large_binary(kind)

        found = []
        for wanted, fits in (("image", encoded), ("label", types.is_integer)):
            names = [f.name for f in self._table.schema if fits(f.type)]
            if wanted in names:
                found.append(wanted)
            elif len(names) == 1 and wanted not in self._table.schema.names:
                found += names
            else:
                kind = "encoded images" if wanted == "image" else "whole numbers"
                remedy = f"must have a column {wanted!r} of {kind}; its columns are "
                raise ValueError(remedy + _columns(self._table))
        return found[0], found[1]

    @functools.cached_property
    def _table(self) -> Any:
        return need("pyarrow", "data.name", "parquet", "parquet").concat_tables(self._tables)

    @functools.cached_property
    def _tables(self) -> list[Any]:
        """Of each file."""
        pa = need("pyarrow", "data.name", "parquet", "parquet")
        if self.files[0].endswith(".parquet"):
            parquet = need("pyarrow.parquet", "data.name", "parquet", "parquet")
            tables = [parquet.ParquetFile(file).read() for file in self.files]
        else:
            ipc = need("pyarrow.ipc", "data.name", "parquet", "parquet")
            tables = [ipc.open_stream(pa.memory_map(file)).read_all() for file in self.files]
        for file, table in zip(self.files, tables, strict=True):
            if not table.schema.equals(tables[0].schema):
                own, first = map(_columns, (table, tables[0]))
                raise ValueError(f"{file} has the columns {own}, not {first}")
        return tables

    def __reduce__(self) -> Any:
        return Table, (self.files,)  # what is open stays here


def _columns(table: Any) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in table.schema)


def open_parquet(data_dir: str | None, stream: bool) -> tuple[Encoded, Encoded, tuple[str, ...]]:
    """Opens the tables of a folder.

    Args:
      data_dir: the folder, see above.
      stream: whether rows will be read in any order all along, for which Parquet is too slow.

    Returns:
      (training part, test part, class names: those of `datasets`, or the numbers).

    Raises:
      SettingError: if pyarrow is not installed, there are no such files, or they hold no images or
        labels.
    """
    need("pyarrow", "data.name", "parquet", "parquet")
    root = pathlib.Path(os.path.expanduser(data_dir or ""))
    files = {} if not data_dir else {name: _files(root, name) for name in ("train", *_TESTS)}
    if not data_dir or not files["train"]:
        remedy = "give a folder with train*.parquet and test*.parquet, or one that save_to_disk of "
        raise SettingError(_FIELD, data_dir, remedy + "Hugging Face datasets has written")
    if stream and files["train"][0].suffix == ".parquet":
        remedy = "single rows of Parquet are slow to read; write the set with save_to_disk of "
        raise SettingError("data.stream", stream, remedy + "Hugging Face datasets, and give that")
    train, names = _part(files["train"], data_dir)
    other = next((files[name] for name in _TESTS if files[name]), None)
    test, its = (None, names) if other is None else _part(other, data_dir)
    if names and its and names != its:
        raise SettingError(_FIELD, data_dir, "training and test part name other classes")
    parts = with_test(train, test, data_dir)
    if not (names := names or its):
        largest = int(train.labels.max())
        if largest >= sum(map(len, parts)):
            remedy = f"labels go up to {largest} for {len(train)} training images; number the "
            raise SettingError(_FIELD, data_dir, remedy + "classes from 0")
        names = tuple(map(str, range(largest + 1)))
    if len(names) < 2:
        raise SettingError(_FIELD, data_dir, "needs at least two classes")
    for part in parts:
        if part.labels.min() < 0 or part.labels.max() >= len(names):
            found = f"{part.labels.min()} to {part.labels.max()}"
            remedy = f"labels of {part.name} are {found}, those of {len(names)} classes are 0 to "
            raise SettingError(_FIELD, data_dir, remedy + str(len(names) - 1))
    return *parts, names


def _files(root: pathlib.Path, split: str) -> list[pathlib.Path]:
    """Of one split: Parquet, or Arrow as `save_to_disk` has it; a set without splits is `train`."""
    arrow = [root / split, *([root] if split == "train" else [])]
    found = [sorted(root.glob(f"{split}*.parquet")), *map(_saved, arrow)]
    return next((files for files in found if files), [])


def _saved(folder: pathlib.Path) -> list[pathlib.Path]:
    """What `save_to_disk` wrote last; files of an earlier set may lie beside it."""
    try:
        state = json.loads((folder / "state.json").read_text())
        return [folder / file["filename"] for file in state["_data_files"]]
    except FileNotFoundError:
        return sorted(folder.glob("data-*.arrow"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        remedy = f"{folder / 'state.json'} cannot be read ({first_line(error)}); save the set again"
        raise SettingError(_FIELD, str(folder), remedy) from error


def _part(files: Sequence[pathlib.Path], data_dir: str) -> tuple[Encoded, tuple[str, ...]]:
    source = Table(tuple(map(str, files)))
    name = f"{files[0]} and {len(files) - 1} more" if len(files) > 1 else str(files[0])
    try:
        labels, names = source.labels, source.class_names
    except SettingError:
        raise
    except Exception as error:  # Arrow's and JSON's
        raise SettingError(_FIELD, data_dir, f"{name}: {first_line(error)}") from error
    if not len(labels):
        raise SettingError(_FIELD, data_dir, f"{name}: holds no rows")
    if count := int(np.sum(labels == -1)):
        remedy = f"{name}: {count} of {len(labels)} rows have no label; leave them out, or label "
        raise SettingError(_FIELD, data_dir, remedy + "them from 0")
    if labels.max() > np.iinfo(np.int32).max:
        raise SettingError(_FIELD, data_dir, f"{name}: the label {labels.max()} is too large")
    sizes = "".join(f"{file.name}\0{file.stat().st_size}\0" for file in files)
    digest = hashlib.sha256(sizes.encode() + labels.tobytes())
    rows = np.arange(len(labels), dtype=np.int32)
    return Encoded(source, rows, labels.astype(np.int32), name, digest.hexdigest()), names
