"""Images in folders, one for each class.

`DIR/train/CLASS/*.jpg` and `DIR/test/CLASS/*.jpg` (or `validation`, or else `val`, for `test`); or
`DIR/CLASS/*.jpg`, of which a fifth of each class is kept for the test: the same images as long as
the folder stays as it is; a class of few images may get none. Images may lie deeper below their
class's folder. Names that begin with a dot and files that do not end like an image (`SUFFIXES`) are
passed over. Everything is sorted by name.
"""

import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Iterator, Mapping

import numpy as np

from afd_jax.data.crops import require_bits
from afd_jax.data.encoded import Encoded, attempt_all, with_test
from afd_jax.data.extra import need
from afd_jax.errors import SettingError, first_line, one_of

SUFFIXES = (
    *(".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
)
_TESTS = ("test", "validation", "val")
_PART = re.compile(r"(train|training|test|testing|val|valid|validation)([-_ ]?(set|data|images))?")
_FIELD = "data.data_dir"


@dataclasses.dataclass(frozen=True)
class Files:
    """Random access to image files.

    Attributes:
      folder: that they lie in.
      names: path of each, below it.
      labels: of each.
    """

    folder: str
    names: tuple[str, ...]
    labels: np.ndarray

    def __getitem__(self, row: int) -> Mapping[str, object]:
        file = os.path.join(self.folder, self.names[row])
        content = pathlib.Path(file).read_bytes()
        return {"image": content, "label": int(self.labels[row]), "file": file}


def open_folder(data_dir: str | None) -> tuple[Encoded, Encoded, tuple[str, ...]]:
    """Lists the images of a folder; reads none.

    Args:
      data_dir: the folder, see above.

    Returns:
      (training part, test part, class names).

    Raises:
      SettingError: if there is no such folder, there are not at least two classes, they look like
        parts of a data set, one has no images, or the test part has a class that the training part
        lacks.
    """
    root = pathlib.Path(os.path.expanduser(data_dir or ""))
    if not data_dir or not root.is_dir():
        remedy = "no such folder; give one that holds a folder of images for each class, or train "
        raise SettingError(_FIELD, data_dir, remedy + "and test with such folders")
    # Images right below `train` make it a class, of vehicles perhaps.
    if not _folders(root / "train"):
        train, names = _part(root, data_dir, None)
        return *with_test(train, None, data_dir), names
    test = next((name for name in _TESTS if (root / name).is_dir()), None)
    if test is None:
        remedy = f"has a folder train, but none called {', '.join(_TESTS)}; add one, or give "
        remedy += f"{root / 'train'} itself, a fifth of which is then kept for the test"
        raise SettingError(_FIELD, data_dir, remedy)
    train, names = _part(root / "train", data_dir, None)
    return train, _part(root / test, data_dir, names)[0], names


def check(parts: tuple[Encoded, ...], data_dir: str) -> None:
    """Opens every file, which reads its beginning, before a stream comes to it.

    Raises:
      SettingError: for files that are no images, or whose pixels have no 8 or 16 bits.
    """
    image = need("PIL.Image", _FIELD, data_dir)

    def look(file: str) -> None:
        try:
            with image.open(file) as opened:
                require_bits(opened)
        except Exception as error:
            raise ValueError(f"{file} ({first_line(error)})") from error

    files = [
        os.path.join(part.source.folder, part.source.names[row])
        for part in parts
        for row in part.rows.tolist()
    ]
    attempt_all(look, files, "checking", data_dir)


def _part(
    folder: pathlib.Path, data_dir: str, known: tuple[str, ...] | None
) -> tuple[Encoded, tuple[str, ...]]:
    """The images below a folder of classes, whose names must be among those known."""
    found = _folders(folder)
    names = tuple(found) if known is None else known
    if len(names) < 2:
        remedy = f"{folder} must hold a folder of images for each of at least two classes, and "
        raise SettingError(_FIELD, data_dir, remedy + f"holds {', '.join(names) or 'no folder'}")
    if all(_PART.fullmatch(name.lower()) for name in names):
        remedy = f"{folder} holds {', '.join(names)}, which look like parts of a data set, not "
        remedy += f"like classes; call them train and {', '.join(_TESTS)}"
        raise SettingError(_FIELD, data_dir, remedy)
    if odd := next((name for name in names if not _is_text(name)), None):
        remedy = f"the name of the class {odd!r} is not UTF-8; rename its folder"
        raise SettingError(_FIELD, data_dir, remedy)
    unknown = [name for name in found if name not in names]
    if unknown:
        remedy = f"{folder} has the class {unknown[0]!r}, of which there is nothing to train on; "
        raise SettingError(_FIELD, data_dir, remedy + one_of(unknown[0], names))
    digest, files, labels = hashlib.sha256(), [], []
    for name in found:
        own = [*images_below(folder / name, data_dir)]
        if not own:
            remedy = f"{folder / name} has no images ({', '.join(SUFFIXES)}); remove it, or fill it"
            raise SettingError(_FIELD, data_dir, remedy)
        for path in own:
            relative = path.relative_to(folder)
            size = path.stat().st_size if path.exists() else -1  # a link to nothing
            digest.update(os.fsencode(f"{relative.as_posix()}\0{size}\0"))
            files.append(str(relative))
        labels += [names.index(name)] * len(own)
    if not files:
        raise SettingError(_FIELD, data_dir, f"{folder} holds no folder of any class")
    numbers = np.array(labels, np.int32)
    source = Files(str(folder), tuple(files), numbers)
    rows = np.arange(len(files), dtype=np.int32)
    return Encoded(source, rows, numbers, str(folder), digest.hexdigest()), names


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes of another encoding
        return False
    return True


def _folders(folder: pathlib.Path) -> list[str]:
    """Names of the folders in a folder, if it is one, sorted."""
    if not folder.is_dir():
        return []
    below = [p for p in folder.iterdir() if not p.name.startswith(".")]
    if lost := next((p for p in sorted(below) if p.is_symlink() and not p.exists()), None):
        raise SettingError(_FIELD, str(folder), f"{lost} is a link to what is not there")
    return sorted(p.name for p in below if p.is_dir())


def images_below(
    folder: pathlib.Path, given: str, *, field: str = _FIELD, above: tuple[str, ...] = ()
) -> Iterator[pathlib.Path]:
    """The images below a folder, sorted by name; links are followed.

    Raises:
      SettingError: for a link to a folder that it lies in; it names the field and what was given.
    """
    real = os.path.realpath(folder)
    if real in above:
        raise SettingError(field, given, f"{folder} is a link to a folder that it lies in")
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from images_below(path, given, field=field, above=(*above, real))
        elif path.suffix.lower() in SUFFIXES:
            yield path
