"""Reads the tensors of PyTorch files without PyTorch, and without running what a file asks for.

`.safetensors` files are read by the package safetensors. All others are pickles of `torch.save`,
in a zip archive (PyTorch 1.6 and later) or in the form before that. A pickle may call any function;
this reader knows the two that a state dict needs and refuses all others by name.
"""

import collections
import io
import pathlib
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from afd_jax.data.extra import need
from afd_jax.errors import SettingError, first_line

WRAPPERS = ("state_dict", "model", "model_state_dict", "net")
"""Under these keys training scripts save a state dict beside other things."""

SUFFIXES = (".safetensors", ".pth", ".pt", ".tar")

_ALONE = "save the weights alone, torch.save(model.state_dict(), FILE)"
_DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_LEGACY = (0x1950A86A20F9469CFC6C, 1001)  # how a file of the older form begins


def read_tensors(field: str, value: Any, file: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict, by name.

    Args:
      field: of the setting that names the file, for errors.
      value: of that setting.
      file: `.safetensors`, or what `torch.save` wrote: a state dict, or a dict that has one under
        one of the keys in `WRAPPERS`.

    Raises:
      SettingError: if the file cannot be read, holds no state dict, or asks for anything but
        tensors.
    """
    if not file.is_file():
        raise SettingError(field, value, f"there is no file {file}")
    try:
        if file.suffix == ".safetensors":
            tensors = need("safetensors.numpy", field, value).load_file(file)
        elif tarfile.is_tarfile(file):
            raise _RefusedError("the file is a tar archive; unpack it, and name a file in it")
        elif zipfile.is_zipfile(file):
            tensors = _read_zip(file)
        else:
            tensors = _read_legacy(file)
    except SettingError:
        raise
    except _RefusedError as error:
        raise SettingError(field, value, str(error)) from error
    except Exception as error:  # whatever a damaged file leads to
        remedy = f"{file} is damaged or no file of PyTorch weights ({first_line(error)})"
        raise SettingError(field, value, remedy) from error
    return dict(tensors)


class _RefusedError(ValueError):
    """A file that may be in order, but not for us."""


class _Storage(NamedTuple):
    kind: str
    key: str
    size: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its numbers."""
        return np.dtype(_DTYPES[self.kind])


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, numbers: np.ndarray) -> np.ndarray:
        """The tensor in its storage's numbers.

        Raises:
          ValueError: if it would reach beyond them.
        """
        counts = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or any(type(n) is not int or n < 0 for n in counts):
            raise ValueError("a tensor without a proper shape")
        last = sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if 0 not in self.shape and self.offset + last >= len(numbers):
            raise ValueError("a tensor that reaches beyond its numbers")
        strides = [step * numbers.itemsize for step in self.strides]
        # What shares numbers by a stride of zero is larger than its file; the shape is checked
        # before anything is copied.
        return np.lib.stride_tricks.as_strided(
            numbers[self.offset :], self.shape, strides, writeable=False
        )


class _Unpickler(pickle.Unpickler):
    """Builds dicts, lists, numbers, text and tensors.

    What it hands out for a name cannot be changed by the pickle: a method, a class of C, text.
    """

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name in the file."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._rebuild
        if module == "torch" and name in _DTYPES:
            return name
        raise _RefusedError(f"the file asks for {module}.{name}, which is refused; {_ALONE}")

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage that tensors refer to."""
        what, kind, key, _, count, *view = pid
        if what != "storage" or kind not in _DTYPES or any(v is not None for v in view):
            raise _RefusedError(f"the file has a storage that is not known, {pid!r}; {_ALONE}")
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise ValueError("a storage without a proper name or size")
        return _Storage(kind, key, count)

    def _rebuild(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
        if not isinstance(storage, _Storage):
            raise ValueError("a tensor without a storage")
        return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _read_zip(file: pathlib.Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("its archive is compressed")  # PyTorch's never is; it might be a bomb
        places = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(places) != 1:
            raise ValueError("no data.pkl in it")
        root = places[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist():
            if archive.read(f"{root}byteorder") != b"little":
                raise _RefusedError(f"the file was saved in big-endian order; {_ALONE} elsewhere")
        content = _Unpickler(io.BytesIO(archive.read(places[0]))).load()

        def numbers(storage: _Storage) -> np.ndarray:
            entry = archive.getinfo(f"{root}data/{storage.key}")
            if entry.file_size != storage.size * storage.dtype.itemsize:
                raise ValueError(f"{entry.filename} has another size than its tensors say")
            return np.frombuffer(archive.read(entry), storage.dtype.newbyteorder("<"))

        return _tensors(content, numbers)


def _read_legacy(file: pathlib.Path) -> dict[str, np.ndarray]:
    with file.open("rb") as stream:
        head = tuple(_Unpickler(stream).load() for _ in _LEGACY)
        if head != _LEGACY:
            raise ValueError("it does not begin as they do")
        if not _Unpickler(stream).load().get("little_endian", True):
            raise _RefusedError(f"the file was saved in big-endian order; {_ALONE} elsewhere")
        content = _Unpickler(stream).load()
        order = _Unpickler(stream).load()
        kinds = {t.storage.key: t.storage for t in _all_tensors(content)}
        read: dict[_Storage, np.ndarray] = {}
        for key in order:
            storage, count = kinds[key], int.from_bytes(stream.read(8), "little")
            data = stream.read(count * storage.dtype.itemsize)
            if count != storage.size or len(data) != count * storage.dtype.itemsize:
                raise ValueError("its end is missing")
            read[storage] = np.frombuffer(data, storage.dtype.newbyteorder("<"))
        return _tensors(content, read.__getitem__)


def _all_tensors(content: Any) -> list[_Tensor]:
    """Every tensor in nested dicts and lists."""
    if isinstance(content, _Tensor):
        return [content]
    if isinstance(content, Mapping):
        content = list(content.values())
    return (
        [t for x in content for t in _all_tensors(x)] if isinstance(content, list | tuple) else []
    )


def _tensors(content: Any, numbers: Callable[[_Storage], np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of the state dict in what was saved."""
    read: dict[_Storage, np.ndarray] = {}
    tensors = {}
    for name, tensor in _state_dict(content).items():
        if tensor.storage not in read:
            read[tensor.storage] = numbers(tensor.storage)
        tensors[name] = tensor.view(read[tensor.storage])
    return tensors


def _state_dict(content: Any) -> dict[str, _Tensor]:
    if isinstance(content, dict):
        inner = [key for key in WRAPPERS if isinstance(content.get(key), dict)]
        if len(inner) == 1:
            return _state_dict(content[inner[0]])
        tensors = {name: x for name, x in content.items() if isinstance(x, _Tensor)}
        if tensors and len(tensors) == len(content) and all(isinstance(n, str) for n in tensors):
            return tensors
    words = ", ".join(WRAPPERS)
    remedy = f"the file holds no state dict, neither as it is nor under one of {words}; {_ALONE}"
    raise _RefusedError(remedy)
