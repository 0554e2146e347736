"""Where images come from: folders, tables, arrays on disk, TFDS, or scikit-learn's digits.

"folder" and "parquet" read files of images; see `folder.py` and `parquet.py`. "arrays" reads a .npz
file, which a few lines of NumPy write, here from Pillow's images and their labels:

>>> import numpy as np, tempfile
>>> from PIL import Image
>>> train = [(Image.new("RGB", (48, 32), colour), n) for n, colour in enumerate(["red", "blue"])]
>>> def arrays(pairs):
...     images = np.stack([np.array(image.resize((32, 32))) for image, _ in pairs])
...     return images, np.array([label for _, label in pairs])  # [n, h, w, c] uint8, [n]
>>> (images, labels), (test_images, test_labels) = arrays(train), arrays(train)
>>> path = tempfile.mkdtemp() + "/colours.npz"
>>> np.savez(path, images=images, labels=labels, test_images=test_images, test_labels=test_labels,
...          class_names=["red", "blue"])  # may be left out
>>> load("arrays", data_dir=path).class_names
('red', 'blue')
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import tempfile
from typing import Any

import numpy as np

from afd_jax.data import folder
from afd_jax.data.cache import cache_dir
from afd_jax.data.encoded import Encoded, decoded
from afd_jax.data.examples import Examples, Splits, evenly, hold_out
from afd_jax.data.extra import Quiet, need
from afd_jax.data.parquet import open_parquet
from afd_jax.data.streaming import Streamed, require_grain
from afd_jax.errors import SettingError, first_line, one_of, require_flag, require_number

TFDS_NAMES = ("cifar10", "cifar100")
FILES = ("folder", "parquet")
NAMES = ("arrays", "digits", *FILES, *TFDS_NAMES)

_SPLIT_SEED = 0
_DIGITS_TEST_SHARE = 0.2
_QUIET = Quiet("tensorflow_datasets", logging.ERROR)


def load(
    name: str,
    *,
    data_dir: str | None = None,
    download: bool = False,
    image_size: int | None = None,
    heldout: float = 0.0,
    labels: int | None = None,
    limit: int | None = None,
) -> Splits:
    """Loads a data set into memory.

    Args:
      name: "digits" (1,797 real 8x8 images, needs no download), "cifar10", "cifar100", any other
        image classification set as "tfds:NAME"; "folder", "parquet" or "arrays".
      data_dir: for TFDS the folder that holds its data sets (its own default if None); for "folder"
        and "parquet" the folder that `folder.py` and `parquet.py` describe; for "arrays" a .npz
        file with images [n, h, w, c] uint8, labels [n], test_images, test_labels, and perhaps
        class_names [classes].
      download: let TFDS fetch and prepare a data set that is not there.
      image_size: side of the images that come out; None for the images as they are. For "folder"
        and "parquet" the shorter side is resized to it and the centre kept; for others each pixel
        is the mean of a block of those in the set.
      heldout: share of the training part to hold out for model selection.
      labels: train on so many examples only, as many of each class as can be; None for all. The
        same examples whatever the seed of a run; held-out and test parts stay whole.
      limit: use only so many training and test examples, for quick checks.

    Returns:
      `Splits` of `Examples`.

    Raises:
      SettingError: if the name is unknown, the data cannot be found or read, or their size is no
        multiple of the one wanted.
    """
    require_flag("data.download", download)
    if image_size is not None:
        require_number("data.image_size", image_size, least=1, whole=True)
    require_shares(heldout, limit)
    if name in FILES:
        files, names = from_files(name, data_dir, heldout, labels, limit)
        kept, held, test = decoded(files, image_size, str(data_dir))
        return Splits(kept, held, test, names)
    if name == "digits":
        train, test, names = _digits()
    elif name == "arrays":
        train, test, names = _arrays(data_dir)
    elif name in TFDS_NAMES or str(name).startswith("tfds:"):
        train, test, names = _tfds(name.removeprefix("tfds:"), data_dir, download)
    else:
        raise SettingError("data.name", name, one_of(name, NAMES) + ", or 'tfds:NAME'")
    if image_size is not None:
        train, test = (_reduced(part, image_size) for part in (train, test))
    kept, held = split(train, heldout, labels)
    if name == "arrays":  # perhaps sorted by class, so the first ones would be of a single class
        kept, held, test = (evenly(part, limit, _SPLIT_SEED) for part in (kept, held, test))
    else:
        kept, held, test = (part.take(slice(limit)) for part in (kept, held, test))
    return Splits(kept, held, test, names)


def require_shares(heldout: float, limit: int | None) -> None:
    """Raises SettingError unless so much can be held out, and so many examples used."""
    require_number("data.heldout", heldout, least=0, most=0.9)
    if limit is not None:
        require_number("data.limit", limit, least=1, whole=True)


def split(train: Any, heldout: float, labels: int | None) -> tuple[Any, Any]:
    """What is learned from, perhaps so many examples only, and what is held out."""
    kept, held = hold_out(train, heldout, _SPLIT_SEED)
    if labels is not None:
        require_number("data.labels", labels, least=1, most=len(kept), whole=True)
    return evenly(kept, labels, _SPLIT_SEED), held


def from_files(
    name: str,
    data_dir: str | None,
    heldout: float,
    labels: int | None,
    limit: int | None,
    stream: bool = False,
) -> tuple[tuple[Encoded, Encoded, Encoded], tuple[str, ...]]:
    """Training, held-out and test part of images in files, none of them read; class names."""
    if name == "folder":
        train, test, names = folder.open_folder(data_dir)
    else:
        train, test, names = open_parquet(data_dir, stream)
    kept, held = split(train, heldout, labels)
    # Files are sorted by class, so the first ones would be of a single class.
    kept, held, test = (evenly(part, limit, _SPLIT_SEED) for part in (kept, held, test))
    return (kept, held, test), names


def require_blocks(height: int, width: int, side: int) -> None:
    """Raises SettingError unless square blocks of pixels make images of that side."""
    if height != width or height % side:
        remedy = f"the images are {height}x{width}; their side must be a multiple of it"
        raise SettingError("data.image_size", side, remedy)


def _reduced(examples: Examples, side: int) -> Examples:
    """Images of a smaller side, rounded to whole values, halves to even."""
    count, height, width, channels = examples.images.shape
    require_blocks(height, width, side)
    block = height // side
    blocks = examples.images.reshape(count, side, block, side, block, channels)
    sums = blocks.sum((2, 4), dtype=np.uint32)
    return Examples(np.round(sums / block**2).astype(np.uint8), examples.labels)


def load_streamed(
    name: str,
    *,
    data_dir: str | None = None,
    download: bool = False,
    image_size: int = 224,
    workers: int = 0,
    heldout: float = 0.0,
    limit: int | None = None,
) -> Splits:
    """Opens a data set whose images are read from disk all along; decodes none yet.

    Args:
      name: "folder", "parquet", or any image classification set of TFDS that is prepared as
        ArrayRecord, such as "imagenet2012" or "tfds:imagenet2012".
      data_dir: as for `load`.
      download: let TFDS fetch and prepare a data set that is not there.
      image_size: side of the images that come out.
      workers: processes that decode; 0 for threads of this process.
      heldout: share of the training part to hold out for model selection: of each class, or, for
        TFDS, whose labels are not read ahead, at random.
      limit: use only so many training and test examples, for quick checks.

    Returns:
      `Splits` of `Streamed`; the test part is the validation part where there are no test labels.

    Raises:
      SettingError: if Grain is not installed, or the data cannot be found or read.
    """
    require_flag("data.download", download)
    require_number("data.image_size", image_size, least=8, whole=True)
    require_number("data.workers", workers, least=0, whole=True)
    require_shares(heldout, limit)
    require_streamable(name)
    require_grain()
    if name in FILES:
        files, names = from_files(name, data_dir, heldout, None, limit, stream=True)
        if name == "folder":
            folder.check(files, str(data_dir))
        kept, held, test = (part.streamed(image_size, workers) for part in files)
        return Splits(kept, held, test, names)
    builder = prepared_builder(name.removeprefix("tfds:"), data_dir, download)
    facts = (pathlib.Path(builder.data_path) / "dataset_info.json").read_bytes()

    def opened(split: str) -> Streamed:
        source = _source(builder, split, data_dir)
        rows = np.arange(len(source), dtype=np.int32)
        identity = hashlib.sha256(facts + split.encode()).hexdigest()
        words = f"{builder.info.name} {split}"
        return Streamed(source, image_size, rows, workers, words, identity)

    train = opened("train")
    test = opened(test_split(builder, data_dir))
    kept, held = _hold_out(train, heldout)
    kept, held, test = (part.take(slice(limit)) for part in (kept, held, test))
    return Splits(kept, held, test, tuple(builder.info.features["label"].names))


def require_streamable(name: str) -> None:
    """Raises SettingError for a set that can only be loaded into memory."""
    if name in NAMES and name not in (*FILES, *TFDS_NAMES):
        raise SettingError("data.stream", True, f"{name!r} is loaded into memory; set it to False")


def test_split(builder: Any, data_dir: str | None) -> str:
    """The split to test on: one with labels, as those of ImageNet's own are secret (-1)."""
    for name in ("test", "validation"):
        if name in builder.info.splits and _source(builder, name, data_dir)[0]["label"] >= 0:
            return name
    remedy = "has neither a test nor a validation split with labels"
    raise SettingError("data.name", builder.info.name, remedy)


def _hold_out(streamed: Streamed, share: float) -> tuple[Streamed, Streamed]:
    """Splits off a share at random: to read all labels would be to read all of the data."""
    count = round(share * len(streamed))
    if share and not 0 < count < len(streamed):
        remedy = f"cannot hold out that share of {len(streamed)} examples"
        raise SettingError("data.heldout", share, remedy)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(streamed))
    return streamed.take(np.sort(order[count:])), streamed.take(np.sort(order[:count]))


def _source(builder: Any, split: str, data_dir: str | None) -> Any:
    """Random access to a split of a prepared set; images stay encoded."""
    tfds = need("tensorflow_datasets", "data.name", builder.info.name)
    decoders = {"image": tfds.decode.SkipDecoding()}
    try:
        return builder.as_data_source(split=split, decoders=decoders)
    except (NotImplementedError, ValueError, OSError) as error:
        remedy = f"cannot read {builder.data_path} ({first_line(error)}); it must be ArrayRecord"
        raise SettingError("data.data_dir", data_dir, remedy) from error


_Loaded = tuple[Examples, Examples, tuple[str, ...]]
"""Training part, test part, class names."""


def _numbers(classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(classes)))


def _digits() -> _Loaded:
    bunch = need("sklearn.datasets", "data.name", "digits").load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    everything = Examples(images, bunch.target.astype(np.int32))
    # The bundled set has no test part of its own; this split is fixed for all runs.
    train, test = hold_out(everything, _DIGITS_TEST_SHARE, _SPLIT_SEED)
    return train, test, _numbers(10)


def _arrays(path: str | None) -> _Loaded:
    field = "data.data_dir"
    keys = ("images", "labels", "test_images", "test_labels")
    file_path = pathlib.Path(os.path.expanduser(path or ""))
    if not file_path.is_file():
        remedy = f"no such file; give a .npz file with the arrays {', '.join(keys)}"
        raise SettingError(field, path, remedy)
    try:
        # Opened here, as NumPy leaves a damaged file open.
        with file_path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            arrays = {key: file[key] for key in (*keys, "class_names") if key in file.files}
    except Exception as error:  # zipfile, zlib and NumPy each have their own
        remedy = f"not a readable .npz file of plain arrays ({first_line(error)})"
        raise SettingError(field, path, remedy) from error
    missing = [key for key in keys if key not in arrays]
    if missing:
        remedy = f"lacks {', '.join(missing)}; it needs {', '.join(keys)}"
        raise SettingError(field, path, remedy)
    parts = []
    for prefix in ("", "test_"):
        images, labels = arrays[f"{prefix}images"], arrays[f"{prefix}labels"]
        if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape[1:]:
            found = f"{images.dtype} {images.shape}"
            raise SettingError(
                field, path, f"{prefix}images must be uint8 [n, h, w, c], not {found}"
            )
        if _channels_first(images.shape):
            remedy = f"{prefix}images must be [n, h, w, c]; {images.shape} seems to have the "
            remedy += "channels first, turn them: images.transpose(0, 2, 3, 1)"
            raise SettingError(field, path, remedy)
        if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
            found = f"{labels.dtype} {labels.shape}"
            remedy = f"{prefix}labels must be integers [{len(images)}], not {found}"
            raise SettingError(field, path, remedy)
        if not len(labels) or labels.min() < 0:
            remedy = f"{prefix}labels must be 0 or more, and there must be some"
            raise SettingError(field, path, remedy)
        parts.append(Examples(images, labels.astype(np.int32)))
    train, test = parts
    if train.images.shape[1:] != test.images.shape[1:]:
        found = f"{train.images.shape[1:]} and {test.images.shape[1:]}"
        raise SettingError(field, path, f"training and test images differ in shape: {found}")
    # Of the file's own integers: those of the sets have 32 bits.
    largest = max(int(arrays[key].max()) for key in ("labels", "test_labels"))
    names: tuple[str, ...] = ()
    if "class_names" in arrays:
        given = arrays["class_names"]
        if given.ndim != 1 or given.dtype.kind != "U":
            remedy = f"class_names must be a list of texts, not {given.dtype} {given.shape}"
            raise SettingError(field, path, remedy)
        names = tuple(given.tolist())
        if len({*names}) != len(names) or len(names) <= largest:
            remedy = f"class_names must be different names, one for each label 0 to {largest}"
            raise SettingError(field, path, remedy)
        largest = len(names) - 1
    if not 1 <= largest < len(train) + len(test):
        remedy = f"labels go up to {largest} for {len(train)} training images; number at least "
        remedy += "two classes from 0"
        raise SettingError(field, path, remedy)
    return train, test, names or _numbers(largest + 1)


def _channels_first(shape: tuple[int, ...]) -> bool:
    """Whether only that explains a shape; rows of one pixel may have many channels.

    >>> _channels_first((100, 3, 24, 32)), _channels_first((100, 1, 28, 28))
    (True, True)
    >>> _channels_first((100, 1, 500, 12)), _channels_first((100, 3, 3, 3))
    (False, False)
    """
    _, height, width, channels = shape
    return channels > 4 and (height == 3 or (height == 1 and width == channels))


def _tfds(name: str, data_dir: str | None, download: bool) -> _Loaded:
    """Reads a prepared TFDS data set without TensorFlow; decodes it once and keeps the arrays."""
    builder = prepared_builder(name, data_dir, download)
    names = tuple(builder.info.features["label"].names)
    parts = ("train", test_split(builder, data_dir))
    train, test = (_decoded(builder, part, data_dir) for part in parts)
    return train, test, names


def prepared_builder(name: str, data_dir: str | None, download: bool) -> Any:
    """TFDS's builder of a set that is prepared, or gets prepared if `download` says so.

    Raises:
      SettingError: if there is no such set, or it lacks images, labels or parts.
    """
    logging.getLogger("absl").addFilter(_QUIET)
    tfds = need("tensorflow_datasets", "data.name", name)

    folder = pathlib.Path(os.path.expanduser(data_dir or tfds.core.constants.DATA_DIR))
    if data_dir is not None and not folder.is_dir():
        remedy = "no such folder; give the folder that holds TFDS data sets, or None for its own"
        raise SettingError("data.data_dir", data_dir, remedy)
    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except tfds.core.registered.DatasetNotFoundError as error:
        raise SettingError("data.name", name, "TFDS has no data set of that name") from error
    except Exception as error:
        raise SettingError("data.data_dir", data_dir, first_line(error)) from error
    by_hand = " ".join((getattr(builder, "MANUAL_DOWNLOAD_INSTRUCTIONS", None) or "").split())
    manual = folder / "downloads" / "manual"
    if not pathlib.Path(builder.data_path).is_dir():
        if not download:
            remedy = f"there is no {builder.data_path}; set data.data_dir to the folder that "
            remedy += "holds it, or data.download=True to let TFDS fetch and prepare it"
            raise SettingError("data.data_dir", data_dir, remedy)
        try:
            config = tfds.download.DownloadConfig(manual_dir=manual)
            builder.download_and_prepare(download_config=config)
        except (Exception, SystemExit) as error:
            remedy = f"TFDS could not prepare {name} ({first_line(error)}); prepare it elsewhere "
            remedy += f"with `tfds build {name} --file_format=array_record` and copy the folder"
            if by_hand:
                remedy = f"TFDS cannot download {name} by itself ({first_line(error)}); bring by "
                remedy += f"hand what it asks for, into {manual}: {by_hand}"
            raise SettingError("data.download", download, remedy) from error
    features, splits = builder.info.features or {}, builder.info.splits or {}
    known = {"image", "label"} <= {*features} and "train" in splits
    if not known or not {"test", "validation"} & {*splits}:
        remedy = "the data set needs the features image and label, a split train, and a split test "
        raise SettingError("data.name", name, remedy + "or validation")
    return builder


def _decoded(builder: Any, split: str, data_dir: str | None) -> Examples:
    identity = (pathlib.Path(builder.data_path) / "dataset_info.json").read_bytes()
    digest = hashlib.sha256(identity).hexdigest()[:12]
    folder = cache_dir("data", f"{builder.info.name}-{builder.info.version}-{digest}", split)
    if not folder.is_dir():
        _decode(builder, split, folder, data_dir)
    try:
        return Examples(np.load(folder / "images.npy"), np.load(folder / "labels.npy"))
    except (ValueError, OSError) as error:
        remedy = f"{folder} is damaged ({first_line(error)}); remove it, and it is made again"
        raise SettingError("data.name", builder.info.name, remedy) from error


def _decode(builder: Any, split: str, folder: pathlib.Path, data_dir: str | None) -> None:
    tqdm = need("tqdm", "data.name", builder.info.name).tqdm
    try:
        source = builder.as_data_source(split=split)
        rows = [
            source[i]
            for i in tqdm(range(len(source)), f"decoding {split} once", leave=False, disable=None)
        ]
        images = np.stack([row["image"] for row in rows])
    except (NotImplementedError, ValueError, OSError) as error:
        remedy = f"cannot read {builder.data_path} ({first_line(error)}); it must be ArrayRecord "
        remedy += "with images of one size"
        raise SettingError("data.data_dir", data_dir, remedy) from error
    if images.dtype != np.uint8:
        remedy = f"its images are {images.dtype}; only those of 8 bits can be used"
        raise SettingError("data.name", builder.info.name, remedy)
    labels = np.array([row["label"] for row in rows], np.int32)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and renamed, so that an interrupted run leaves no half of a cache.
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        aside = pathlib.Path(scratch, "whole")
        aside.mkdir()  # not for its owner alone, as the scratch folder is
        np.save(aside / "images.npy", images)
        np.save(aside / "labels.npy", labels)
        with contextlib.suppress(OSError):  # another process was faster
            os.replace(aside, folder)
