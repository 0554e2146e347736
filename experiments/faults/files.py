"""Data files and folders of images, some of them damaged; they are read, nothing is trained."""

import io
import pathlib
import tempfile
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from afd_jax.data import load
from afd_jax.errors import SettingError, UnreadableError
from experiments.faults.fuzz import refusal

_KINDS = ("arrays", "folder", "parquet")
_TYPES = (np.uint8, np.int64, np.int32, np.float32, np.bool_, "U3", object)
_MODES = ("RGB", "L", "RGBA", "P", "CMYK", "1", "I;16")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".PNG", ".txt", "")


_USUAL = {
    "seed": 0,
    "examples": 12,
    "classes": 3,
    "size": 8,
    "types": (np.uint8, np.int64),
    "mode": "RGB",
    "suffix": ".png",
    "cut": None,
    "flip": None,
    "label": None,
    "image_size": None,
    "test": True,
    "heldout": 0.0,
}
_OTHERS = {
    "seed": st.integers(0, 2**16),
    "examples": st.integers(0, 12),
    "classes": st.integers(1, 12),
    "size": st.sampled_from([1, 4, (4, 8)]),
    "types": st.tuples(st.sampled_from(_TYPES), st.sampled_from(_TYPES)),
    "mode": st.sampled_from(_MODES),
    "suffix": st.sampled_from(_SUFFIXES),
    "cut": st.floats(0, 1),
    "flip": st.floats(0, 0.999),
    "label": st.sampled_from([-1, 2**31, 2**40, "a", 1.5]),
    "image_size": st.sampled_from([4, 16]),
    "test": st.just(False),
    "heldout": st.just(0.25),
}


@st.composite
def files(draw: Any) -> tuple[str, dict[str, Any]]:
    """What kind of file, and how it is to be made: as usual, but for a few things."""
    kind = draw(st.sampled_from(_KINDS))
    odd = draw(st.sets(st.sampled_from([*_OTHERS]), max_size=3))
    return kind, _USUAL | {name: draw(_OTHERS[name]) for name in sorted(odd)}


def judge(case: tuple[str, dict[str, Any]]) -> str:
    """Writes the files, reads them, and looks at what was read."""
    kind, made = case
    with tempfile.TemporaryDirectory() as scratch:
        path = _WRITERS[kind](pathlib.Path(scratch), made)
        heldout = made["heldout"] if kind != "folder" or made["test"] else 0.25
        try:
            splits = load(kind, data_dir=str(path), image_size=made["image_size"], heldout=heldout)
        except Exception as error:
            return refusal(error, (SettingError, UnreadableError), case)
    for part in (splits.train, splits.test):
        labels, images = part.labels, part.images
        if labels.dtype != np.int32 or images.dtype != np.uint8 or images.ndim != 4:
            return f"accepted as {images.dtype} {images.shape}, {labels.dtype}: {str(case)[:200]}"
        if len(labels) and not 0 <= labels.min() <= labels.max() < splits.classes:
            return f"accepted with a label out of range: {str(case)[:200]}"
        if not (len(labels) == len(images) > 0):
            return f"accepted without images: {str(case)[:200]}"
    return "accepted"


def _broken(content: bytes, made: dict[str, Any]) -> bytes:
    if made["cut"] is not None:
        content = content[: int(len(content) * made["cut"])]
    if made["flip"] is not None and content:
        place = int(len(content) * made["flip"])
        content = content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]
    return content


def _images(made: dict[str, Any], count: int) -> np.ndarray:
    size = made["size"]
    shape = (size, size) if isinstance(size, int) else size
    return np.random.default_rng(made["seed"]).integers(
        256, size=(count, *shape, 3), dtype=np.uint8
    )


def _labels(made: dict[str, Any], count: int) -> list[Any]:
    labels: list[Any] = [n % made["classes"] for n in range(count)]
    if made["label"] is not None and labels:
        labels[-1] = made["label"]
    return labels


def _arrays(folder: pathlib.Path, made: dict[str, Any]) -> pathlib.Path:
    arrays: dict[str, Any] = {}
    for prefix, count in (("", made["examples"]), ("test_", 4)):
        images, labels = made["types"]
        arrays[f"{prefix}images"] = _images(made, count).astype(images)
        given = np.array(_labels(made, count))
        arrays[f"{prefix}labels"] = given.astype(labels) if made["label"] is None else given
    if not made["test"]:
        del arrays["test_labels"]
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    path = folder / "data.npz"
    path.write_bytes(_broken(stream.getvalue(), made))
    return path


def _folder(folder: pathlib.Path, made: dict[str, Any]) -> pathlib.Path:
    for part in ("train", "test") if made["test"] else ("",):
        images = _images(made, made["examples"])
        for n, (image, label) in enumerate(zip(images, _labels(made, len(images)), strict=True)):
            own = folder / part / f"class {label}"
            own.mkdir(parents=True, exist_ok=True)
            content = _encoded(image, made["mode"], made["suffix"])
            (own / f"{n}{made['suffix']}").write_bytes(
                _broken(content, made) if n == 0 else content
            )
    return folder


def _encoded(image: np.ndarray, mode: str, suffix: str) -> bytes:
    kind = "JPEG" if suffix in (".jpg", ".jpeg") and mode in ("RGB", "L", "CMYK") else "PNG"
    if kind == "PNG" and mode == "CMYK":
        mode = "RGB"
    if mode == "I;16":
        picture = Image.fromarray(image[..., 0].astype(np.uint16) * 257)
    else:
        picture = Image.fromarray(image).convert(mode)
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def _parquet(folder: pathlib.Path, made: dict[str, Any]) -> pathlib.Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for part in ("train", "test") if made["test"] else ("train",):
        labels = _labels(made, made["examples"])
        images = [_encoded(x, made["mode"], made["suffix"]) for x in _images(made, len(labels))]
        if images:
            images[0] = _broken(images[0], made)
        kinds = {type(label) for label in labels}
        column = labels if len(kinds) < 2 else [str(label) for label in labels]
        table = pa.table({"image": [{"bytes": x} for x in images], "label": column})
        pq.write_table(table, folder / f"{part}.parquet")
    return folder


_WRITERS = {"arrays": _arrays, "folder": _folder, "parquet": _parquet}
