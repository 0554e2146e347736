"""Tables of encoded images, as Hugging Face `datasets` writes them: Parquet and Arrow."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from afd_jax.data import load, load_streamed
from afd_jax.data.batches import eval_order
from afd_jax.data.streaming import eval_stream, train_stream
from afd_jax.errors import SettingError
from tests.data.test_folder import pixels

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

NAMES = ("owl", "bat", "fox")


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def table(count, seed=0, *, struct=True, names=NAMES, label="label", labels=None):
    """As `datasets` has it: {"bytes", "path"} and ClassLabel."""
    images = [png(pixels(seed + i)) for i in range(count)]
    if struct:
        images = [{"bytes": image, "path": None} for image in images]
    labels = [i % 3 for i in range(count)] if labels is None else labels
    columns = pa.table({"image": images, label: labels, "note": ["x"] * count})
    features = {"image": {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return columns.replace_schema_metadata(metadata) if names else columns


def parquet(folder, **parts):
    for name, content in parts.items():
        pq.write_table(content, folder / f"{name}.parquet", row_group_size=2)
    return str(folder)


def arrow(folder, shards=2, **parts):
    """What `DatasetDict.save_to_disk` writes, as far as it is read."""
    for name, content in parts.items():
        (folder / name).mkdir(parents=True)
        size = -(-len(content) // shards)
        for n in range(shards):
            file = folder / name / f"data-{n:05}-of-{shards:05}.arrow"
            with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, content.schema) as out:
                out.write_table(content.slice(n * size, size), max_chunksize=2)
    return str(folder)


@pytest.mark.parametrize("struct", [True, False])
@pytest.mark.parametrize("write", [parquet, arrow])
def test_images_labels_and_names(tmp_path, write, struct):
    path = write(tmp_path, train=table(12, struct=struct), test=table(7, 50, struct=struct))
    splits = load("parquet", data_dir=path)
    assert splits.class_names == NAMES and splits.image_shape == (12, 12, 3)
    np.testing.assert_array_equal(splits.train.images, [pixels(i) for i in range(12)])
    np.testing.assert_array_equal(splits.test.images, [pixels(50 + i) for i in range(7)])
    assert splits.test.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_several_files_and_no_test_part(tmp_path):
    parts = {f"train-0000{n}-of-00002": table(15, 100 * n, names=None) for n in (1, 0)}
    splits = load("parquet", data_dir=parquet(tmp_path, **parts), image_size=6)
    assert splits.class_names == ("0", "1", "2") and splits.image_shape == (6, 6, 3)
    assert [np.bincount(p.labels).tolist() for p in (splits.train, splits.test)] == [
        [8] * 3,
        [2] * 3,
    ]
    first = Image.fromarray(pixels(0)).resize((6, 6), Image.Resampling.BILINEAR)
    assert (splits.train.images == np.asarray(first)).all((1, 2, 3)).sum() <= 1
    both = [*splits.train.images, *splits.test.images]
    assert any(np.array_equal(image, first) for image in both)


@pytest.mark.parametrize("workers", [0, 1])
def test_arrow_files_can_be_streamed(tmp_path, workers):
    path = arrow(tmp_path, train=table(12), validation=table(7, 50))
    splits = load_streamed("parquet", data_dir=path, image_size=12, workers=workers)
    (batch,) = eval_stream(splits.test, 7)
    labels = np.array([0, 1, 2, 0, 1, 2, 0])[eval_order(7)]
    assert batch["label"].tolist() == labels.tolist() and splits.class_names == NAMES
    assert batch["image"].shape == (7, 12, 12, 3)
    one, again = (
        next(iter(train_stream(splits.train, 6, seed=0, start_step=s, end_step=2))) for s in (0, 1)
    )
    assert {*one["index"], *again["index"]} == {*range(12)}
    digest = splits.train.digest
    (tmp_path / "train" / "data-00001-of-00002.arrow").unlink()
    assert load_streamed("parquet", data_dir=path, image_size=12).train.digest != digest


def test_names_and_columns_that_are_the_only_ones_of_their_kind(tmp_path):
    content = table(12, label="fine")
    metadata = content.schema.metadata
    content = content.rename_columns(["img", "fine", "note"]).replace_schema_metadata(metadata)
    splits = load("parquet", data_dir=parquet(tmp_path, train=content, val=content))
    assert splits.class_names == NAMES and len(splits.test) == 12


def test_a_set_without_splits(tmp_path):
    """What `Dataset.save_to_disk` writes."""
    arrow(tmp_path, train=table(15))
    splits = load("parquet", data_dir=str(tmp_path / "train"))
    assert (len(splits.train), len(splits.test)) == (12, 3)


def test_a_set_that_was_saved_again_with_fewer_files(tmp_path):
    """`save_to_disk` leaves the old ones, and state.json says which are the set's."""
    arrow(tmp_path, train=table(15), test=table(3))
    (tmp_path / "train" / "data-00000-of-00001.arrow").write_bytes(
        (tmp_path / "train" / "data-00001-of-00002.arrow").read_bytes()
    )
    state = tmp_path / "train" / "state.json"
    state.write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    assert len(load("parquet", data_dir=str(tmp_path)).train) == 7
    state.write_text("{}")
    with pytest.raises(SettingError, match=r"state\.json cannot be read .*; save the set again"):
        load("parquet", data_dir=str(tmp_path))


def without_bytes(content):
    images = content["image"].to_pylist()
    images[3] = {"bytes": None, "path": "elsewhere.png"}
    return content.set_column(0, "image", pa.array(images))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({}, r"give a folder with train\*\.parquet and test\*\.parquet"),
        ({"train": table(6).drop_columns("image")}, "must have a column 'image' of encoded images"),
        ({"train": table(6, labels=list("abcabc"))}, "column 'label' of whole .* label .string"),
        (  # the numbers of the rows are no classes
            {"train": table(6, labels=list("abcabc")).append_column("id", [[*range(6)]])},
            "column 'label' of whole .* label .string",
        ),
        ({"train": table(6, labels=[0, 1, 2**32] * 2)}, "the label 4294967296 is too large"),
        (
            {"train": table(6, labels=[0, 1, 70] * 2, names=None), "test": table(3, names=None)},
            "labels go up to 70 for 6 training images; number the classes from 0",
        ),
        ({"train": table(6).slice(0, 0)}, "holds no rows"),
        ({"train": table(6, names=("a", "b")), "test": table(3)}, "name other classes"),
        (
            {"train": table(6, labels=[0, 1, 3] * 2), "test": table(3)},
            "are 0 to 3, those of 3 clas",
        ),
        ({"train": table(6), "test": table(3, labels=[-1] * 3)}, "3 of 3 rows have no label"),
        ({"train": table(6, labels=[0, 1, None] * 2)}, r"train.parquet: 2 of 6 rows have no label"),
        (
            {"train-0": table(6), "train-1": table(6, names=NAMES[::-1])},
            "train-0.parquet and .*train-1.parquet name the classes differently",
        ),
        (
            {"train-0": table(6), "train-1": table(6).select(["label", "image", "note"])},
            "train-1.parquet has the columns label .int64., image .*, not image",
        ),
        ({"train": table(6, labels=[0] * 6, names=None)}, "needs at least two classes"),
        (
            {"train": table(6, labels=[0, 1] * 3, names=None), "test": table(3, names=None)},
            "0 to 1$",
        ),
        (
            {"train": without_bytes(table(6)), "test": table(3)},
            "1 of 9 images cannot .*row 3 of .*train.parquet .holds no bytes",
        ),
        ({"train": table(3)}, "no test part, and a fifth of the images cannot be kept"),
    ],
)
def test_what_cannot_work_is_named(tmp_path, parts, words):
    with pytest.raises(SettingError, match=r"data\.data_dir = .*" + words):
        load("parquet", data_dir=parquet(tmp_path, **parts))


def test_a_damaged_file_is_named(tmp_path):
    path = parquet(tmp_path, train=table(6))
    (tmp_path / "train.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(SettingError, match=r"data\.data_dir = .*train\.parquet: "):
        load("parquet", data_dir=path)


def test_parquet_is_not_streamed(tmp_path):
    path = parquet(tmp_path, train=table(12), test=table(6))
    with pytest.raises(SettingError, match=r"data\.stream = True: single rows .*save_to_disk"):
        load_streamed("parquet", data_dir=path)


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SettingError, match=r"pip install 'afd-jax\[parquet\]'"):
        load("parquet", data_dir=str(tmp_path))
