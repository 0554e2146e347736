"""Folders of images: every kind of image, every layout, and what cannot work."""

import dataclasses
import json
import os
import pathlib
import pickle
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from afd_jax.data import crops, load, load_streamed
from afd_jax.data.batches import eval_order
from afd_jax.data.pictures import picture_files
from afd_jax.data.streaming import eval_stream, train_stream
from afd_jax.errors import SettingError, UnreadableError
from afd_jax.runs import trained
from tests.running import ROOT, command, ctrl_c_after, final_state

CONFIG = f"{ROOT}/configs/folder_afd.py:tests.tiny:Tiny,tests.tiny:Wider"


def save(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)


def pixels(seed, height=12, width=12, channels=3):
    coarse = np.random.default_rng(seed).integers(256, size=(3, 3, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image if channels == 3 else image.convert("L"))


def classes(root, *names, count=5, **options):
    for n, name in enumerate(names):
        for i in range(count):
            save(root / name / f"{i}.png", pixels(100 * n + i, **options))
    return root


@pytest.fixture
def photos(tmp_path):
    """Training and test folders of two classes; sizes differ."""
    root = tmp_path / "photos"
    for split, count in (("train", 16), ("test", 6)):
        for n, name in enumerate(("cat", "dog")):
            for i in range(count):
                image = pixels(100 * n + i, 20 + i, 30 - i)
                save(root / split / name / f"{i:02}.jpg", image, quality=95)
    return root


def bars(size=(40, 20)):
    """Red at the left, green, blue at the right; darker above."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for place in range(3):
        image[:, size[0] * place // 3 : size[0] * (place + 1) // 3, place] = 200
    image[: size[1] // 4] //= 2
    return image


def test_train_and_test_folders_in_the_order_of_names(tmp_path):
    classes(tmp_path / "train", "b", "a", "B")
    classes(tmp_path / "test", "a", "b", count=2)
    splits = load("folder", data_dir=str(tmp_path))
    assert splits.class_names == ("B", "a", "b") and splits.classes == 3
    assert splits.train.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert splits.test.labels.tolist() == [1, 1, 2, 2]
    np.testing.assert_array_equal(splits.train.images[5:10], [pixels(100 + i) for i in range(5)])
    np.testing.assert_array_equal(splits.train.images[10], pixels(0))


@pytest.mark.parametrize(("name", "other"), [("validation", "val"), ("val", None)])
def test_other_names_of_the_test_part(tmp_path, name, other):
    classes(tmp_path / "train", "a", "b")
    classes(tmp_path / name, "a", "b", count=2)
    if other:
        classes(tmp_path / other, "a", "b", count=3)
    assert len(load("folder", data_dir=str(tmp_path)).test) == 4


def test_one_level_keeps_the_same_fifth_of_each_class_for_the_test(tmp_path):
    classes(tmp_path, "car", "train", "bus", count=10)  # images in it make `train` a class
    splits = load("folder", data_dir=str(tmp_path), heldout=0.25)
    parts = (splits.train, splits.heldout, splits.test)
    assert splits.class_names == ("bus", "car", "train")
    assert [np.bincount(part.labels).tolist() for part in parts] == [[6] * 3, [2] * 3, [2] * 3]
    assert len({image.tobytes() for part in parts for image in part.images}) == 30
    again = load("folder", data_dir=str(tmp_path), heldout=0.25)
    assert [part.digest for part in parts] == [
        part.digest for part in (again.train, again.heldout, again.test)
    ]
    streamed = load_streamed("folder", data_dir=str(tmp_path), image_size=12, heldout=0.25)
    rows = [*streamed.train.rows, *streamed.heldout.rows, *streamed.test.rows]
    assert sorted(rows) == list(range(30))
    labels = [streamed.heldout.source[row]["label"] for row in streamed.heldout.rows]
    assert labels == splits.heldout.labels.tolist()


def test_limit_and_labels_take_of_every_class(tmp_path):
    classes(tmp_path, "a", "b", "c", count=10)
    splits = load("folder", data_dir=str(tmp_path), labels=9, limit=6)
    assert [np.bincount(p.labels).tolist() for p in (splits.train, splits.test)] == [[2] * 3] * 2


def test_hidden_and_other_files_are_passed_over(tmp_path):
    classes(tmp_path, "a", "b")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "a" / ".thumbnails").mkdir()
    (tmp_path / "a" / ".thumbnails" / "x.png").write_text("")
    for name in ("a/._0.png", "a/notes.txt", "README.md", "loose.png"):
        (tmp_path / name).write_text("")
    save(tmp_path / "a" / "deeper" / "x.JPEG", pixels(7))
    splits = load("folder", data_dir=str(tmp_path))
    assert splits.class_names == ("a", "b") and len(splits.train) + len(splits.test) == 11


GREY = np.repeat(np.arange(0, 256, 32, dtype=np.uint8)[:, None], 8, axis=1)
COLOUR = np.stack([GREY, GREY.T, 255 - GREY], axis=-1)
SEEN = np.where(np.arange(8)[:, None] < 4, 255, 0).astype(np.uint8) * np.ones((1, 8), np.uint8)


def with_alpha(mode):
    bands = Image.fromarray(GREY if mode == "LA" else COLOUR)
    bands.putalpha(Image.fromarray(SEEN))
    return bands


def palette():
    image = Image.fromarray(np.where(SEEN > 0, 1, 0).astype(np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    return image


ON_WHITE = np.where(SEEN[..., None] > 0, COLOUR, 255)
IN_PALETTE = np.where(SEEN[..., None] > 0, np.uint8([200, 100, 50]), np.uint8([10, 20, 30]))
KINDS = {
    "grey.png": (Image.fromarray(GREY), GREY),
    "bits.png": (Image.fromarray(SEEN).convert("1"), SEEN),
    "sixteen.png": (Image.fromarray(GREY.astype(np.uint16) * 256 + 77), GREY),
    "sixteen.tiff": (Image.fromarray(GREY.astype(np.uint16) * 256 + 255), GREY),
    "sixteen.pgm": (Image.fromarray(GREY.astype(np.int32) * 256), GREY),
    "grey_alpha.png": (with_alpha("LA"), np.where(SEEN > 0, GREY, 255)),
    "rgb.bmp": (Image.fromarray(COLOUR), COLOUR),
    "rgba.png": (with_alpha("RGBA"), ON_WHITE),
    "palette.png": (palette(), IN_PALETTE),
    "palette.gif": (palette(), IN_PALETTE),
    "cmyk.tif": (Image.fromarray(COLOUR).convert("CMYK"), COLOUR),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_images(tmp_path, name):
    """Alone they are grey or RGB; in one set with colours all are RGB."""
    image, expected = KINDS[name]
    for own in ("a", "b"):
        for i in range(3):
            save(tmp_path / own / f"{i}_{name}", image)
    splits = load("folder", data_dir=str(tmp_path))
    channels = 1 if expected.ndim == 2 else 3
    assert splits.image_shape == (8, 8, channels)
    expected = expected.reshape(8, 8, channels)
    for own in (*splits.train.images, *splits.test.images):
        np.testing.assert_allclose(own.astype(int), expected, atol=1)
    save(tmp_path / "a" / "colour.png", COLOUR)
    both = load("folder", data_dir=str(tmp_path))
    assert both.image_shape == (8, 8, 3)
    wide = np.broadcast_to(expected, (8, 8, 3))
    assert all(
        np.abs(i.astype(int) - wide).max() <= 1 or np.array_equal(i, COLOUR)
        for i in (*both.train.images, *both.test.images)
    )
    streamed = load_streamed("folder", data_dir=str(tmp_path), image_size=8)
    (batch,) = eval_stream(streamed.test, 8)
    assert batch["image"].shape == (8, 8, 8, 3)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_of_no_known_range_are_named(tmp_path, kind):
    classes(tmp_path, "a", "b", channels=1)
    save(tmp_path / "a" / "x.tif", Image.fromarray(GREY.astype(kind)))
    for make in (load, load_streamed):
        with pytest.raises(SettingError, match=r"x\.tif \(its pixels are .*; save it with 8 or 16"):
            make("folder", data_dir=str(tmp_path), image_size=8)


def test_damaged_exif_data_turn_no_image(tmp_path):
    classes(tmp_path, "a", "b")
    save(tmp_path / "a" / "x.png", COLOUR, exif=b"garbage")
    assert len(load("folder", data_dir=str(tmp_path), image_size=8).train) == 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_as_their_exif_data_say(tmp_path, orientation):
    upright = bars()
    # What the camera has stored, by the definition of the tag: row 0 and column 0 of what is seen.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for own in ("a", "b"):
        for i in range(3):
            file = tmp_path / own / f"{i}.png"
            save(file, np.ascontiguousarray(stored), exif=exif)
    image = load("folder", data_dir=str(tmp_path)).train.images[0]
    np.testing.assert_array_equal(image, upright)
    streamed = load_streamed("folder", data_dir=str(tmp_path), image_size=16)
    (batch,) = eval_stream(streamed.test, 1 + (len(streamed.test) > 1))
    central = np.asarray(crops.central(Image.fromarray(upright), 16))
    np.testing.assert_array_equal(batch["image"][0], central)


@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (20, 20), (16, 10), (301, 200)])
def test_the_shorter_side_is_resized_and_the_centre_kept(tmp_path, shape):
    image = pixels(5, *shape)
    for own in ("a", "b"):
        for i in range(3):
            save(tmp_path / own / f"{i}.png", image)
    ours = load("folder", data_dir=str(tmp_path), image_size=20).train.images[0].astype(int)
    scale = 20 / min(shape)
    height, width = (round(side * scale) for side in shape)
    whole = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - 20) / 2, (height - 20) / 2
    expected = np.asarray(whole.crop((int(left), int(top), int(left) + 20, int(top) + 20)))
    # Half a pixel where the sides differ by an odd number.
    assert ours.shape == (20, 20, 3) and np.abs(ours - expected).max() <= (
        3 if left % 1 == top % 1 == 0 else 20
    )


def test_sizes_that_differ_need_one(photos):
    words = r"data\.image_size = None: the images differ in size, .*jpg of 30x20 and .*jpg of 29x21"
    with pytest.raises(SettingError, match=words):
        load("folder", data_dir=str(photos))
    assert load("folder", data_dir=str(photos), image_size=16).image_shape == (16, 16, 3)


def test_unreadable_images_are_named_and_counted(photos):
    whole = (photos / "train" / "cat" / "00.jpg").read_bytes()
    for name in ("cat/01.jpg", "dog/15.jpg"):
        (photos / "train" / name).write_bytes(whole[:-200])
    (photos / "test" / "dog" / "03.jpg").write_text("no image")
    (photos / "test" / "dog" / "04.jpg").unlink()
    (photos / "test" / "dog" / "04.jpg").symlink_to("nowhere")
    with pytest.raises(SettingError, match=r"4 of 44 images cannot be read; .*cat/01\.jpg") as all_:
        load("folder", data_dir=str(photos), image_size=16)
    assert "truncated" in str(all_.value)
    for name in ("train/dog/15.jpg (", "test/dog/03.jpg (", "test/dog/04.jpg"):
        assert name in str(all_.value)
    # A stream is not decoded before it comes to an image; then it names it, too.
    with pytest.raises(SettingError, match=r"2 of 44 images cannot be read; .*test/dog/03\.jpg"):
        load_streamed("folder", data_dir=str(photos), image_size=16)
    for name in ("03.jpg", "04.jpg"):
        (photos / "test" / "dog" / name).unlink()
    streamed = load_streamed("folder", data_dir=str(photos), image_size=16)
    with pytest.raises(UnreadableError, match=r"train/cat/01\.jpg cannot be read: .*truncated"):
        list(eval_stream(streamed.train, 8))


def test_only_the_first_few_of_many_are_named(tmp_path):
    classes(tmp_path, "a", "b")
    for i in range(5):
        (tmp_path / "a" / f"{i}.png").write_text("")
        (tmp_path / "b" / f"{i}.png").write_text("")
    with pytest.raises(SettingError, match=r"10 of 10 .*; and 5 more$") as error:
        load("folder", data_dir=str(tmp_path))
    assert str(error.value).count(".png (") == 5


def test_pixels_without_a_range_are_refused(tmp_path):
    classes(tmp_path, "a", "b")
    save(tmp_path / "a" / "x.tif", np.zeros((12, 12), np.float32))
    with pytest.raises(SettingError, match=r"1 of 11 .*x\.tif \(its pixels are floating-point"):
        load("folder", data_dir=str(tmp_path))


def no_such(root):
    return root / "nowhere"


def one_class(root):
    return classes(root, "a")


def loose(root):
    save(root / "x.png", pixels(0))
    return root


def empty_class(root):
    (classes(root, "a", "c") / "b").mkdir()
    return root


def strange_class(root):
    classes(root / "test", "cat", "dgo", count=2)
    classes(root / "train", "cat", "dog")
    return root


def no_test(root):
    classes(root / "train", "cat", "dog")
    classes(root / "tset", "cat", "dog")
    return root


def empty_test(root):
    classes(root / "train", "cat", "dog")
    (root / "test").mkdir()
    return root


def loop(root):
    (classes(root, "a", "b") / "a" / "again").symlink_to(root / "a")
    return root


def few(root):
    classes(root, "a", "b")
    return classes(root, "c", count=1)


def parts(root):
    for part in ("Training", "Test"):
        classes(root / part, "cat", "dog")
    return root


def lost_class(root):
    classes(root, "a", "b")
    (root / "c").symlink_to(root / "nowhere")
    return root


def sets(root):
    return classes(root, "training_set", "test-data")


def latin(root):
    classes(root, "cat", "dog")
    (root / "dog").rename(root / os.fsdecode("stra\u00dfe".encode("latin-1")))
    return root


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_such, r"data\.data_dir = '.*nowhere': no such folder; give one that holds a folder"),
        (one_class, "at least two classes, and holds a$"),
        (loose, "at least two classes, and holds no folder"),
        (empty_class, r"/b has no images \(\.bmp, .*\); remove it, or fill it"),
        (strange_class, "test has the class 'dgo', of which .* did you mean 'dog'"),
        (no_test, "has a folder train, but none called test, validation, val; .*train itself"),
        (empty_test, "test holds no folder of any class"),
        (loop, "a/again is a link to a folder that it lies in"),
        (lost_class, "c is a link to what is not there"),
        (sets, "test-data, training_set, which look like parts of a data set"),
        (parts, "Test, Training, which look like parts of a data set, .* call them train and test"),
        (latin, r"the name of the class 'stra.*e' is not UTF-8; rename its folder"),
        (few, "no test part, and a fifth of the images cannot be kept for it: .*only 1 member"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_work_is_named(make, words, stream, tmp_path):
    root = str(make(tmp_path))
    with pytest.raises(SettingError, match=words):
        load_streamed("folder", data_dir=root) if stream else load("folder", data_dir=root)
    with pytest.raises(SettingError, match=r"data\.data_dir = None: no such folder"):
        load("folder")


def test_a_path_may_begin_with_the_home_of_a_user(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    classes(tmp_path / "photos", "a", "b")
    assert len(load("folder", data_dir="~/photos").train) == 8
    assert len(picture_files("~/photos")) == 10
    for name in ("folder", "arrays", "parquet"):
        with pytest.raises(SettingError, match="= '~nobody_of_that_name/photos': "):
            load(name, data_dir="~nobody_of_that_name/photos")


def test_links_are_followed(tmp_path):
    classes(tmp_path / "store", "a", "b")
    root = tmp_path / "set"
    root.mkdir()
    for name in ("a", "b"):
        (root / name).symlink_to(tmp_path / "store" / name)
    assert len(load("folder", data_dir=str(root)).train) == 8


def test_fingerprints_tell_other_contents_and_names(photos):
    def digests(stream):
        make = load_streamed if stream else load
        return make("folder", data_dir=str(photos), image_size=16).train.digest

    before = [digests(False), digests(True)]
    moved = photos.rename(photos.with_name("moved"))
    moved.rename(photos)
    assert before == [digests(False), digests(True)]
    file = photos / "train" / "cat" / "03.jpg"
    save(file, 255 - pixels(3, 23, 27), quality=90)
    assert not {*before} & {digests(False), digests(True)}
    name = digests(True)
    file.rename(file.with_name("03a.jpg"))
    assert name != digests(True)


def test_streams_give_the_crops_of_files_whoever_reads_them(photos):
    splits = load_streamed("folder", data_dir=str(photos), image_size=16, workers=2)
    assert pickle.loads(pickle.dumps(splits.train)).digest == splits.train.digest
    alone = dataclasses.replace(splits.train, workers=0)
    two, none = (
        list(train_stream(part, 8, seed=1, start_step=0, end_step=5))
        for part in (splits.train, alone)
    )
    jax.tree.map(np.testing.assert_array_equal, two, none)
    (batch,) = eval_stream(alone.take(slice(3)), 3)
    for i, ours in zip(eval_order(3), batch["image"], strict=True):
        with Image.open(photos / "train" / "cat" / f"{i:02}.jpg") as image:
            np.testing.assert_array_equal(ours, crops.central(image, 16))
    assert batch["label"].tolist() == [0, 0, 0]


SETTINGS = (
    "--config.data.image_size=16",
    "--config.data.workers=0",
    "--config.batch_size=8",
    "--config.eval_batch_size=12",
    "--config.duration=2 epochs",
    "--config.log_every=1 steps",
    "--config.eval_every=1 epochs",
    "--config.checkpoint_every=1 epochs",
    "--config.parallel.devices=1",
    "--config.method.critic.widths=(4,)",
)


@pytest.mark.parametrize("words", ["", ",stream"])
def test_a_run_continues_bit_equal_and_keeps_the_names(words, photos, tmp_path, monkeypatch):
    config, settings = CONFIG + words, (*SETTINGS, f"--config.data.data_dir={photos}")

    def run(name):
        return command(tmp_path / name, config=config, settings=settings)

    assert run("whole") == 0
    ctrl_c_after(monkeypatch, 5)
    assert run("cut") == 130
    monkeypatch.undo()
    facts = tmp_path / "cut" / "data.json"
    saved = json.loads(facts.read_text())
    assert saved.pop("class_names") == ["cat", "dog"]
    facts.write_text(json.dumps(saved))  # as a run has it that began before names were kept
    assert run("cut") == 0
    ours, theirs = (
        final_state(tmp_path / name, config=config, settings=settings) for name in ("whole", "cut")
    )
    assert int(ours.step) == 8
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert trained.load(tmp_path / "whole", "Tiny", trust=True).class_names == ("cat", "dog")
    assert trained.load(tmp_path / "cut", "Tiny", trust=True).class_names == ("0", "1")


def test_renamed_classes_are_other_data(photos, tmp_path, capsys):
    settings = (*SETTINGS, "--config.duration=1 steps", f"--config.data.data_dir={photos}")
    assert command(tmp_path / "run", config=CONFIG, settings=settings) == 0
    for split in ("train", "test"):
        (photos / split / "dog").rename(photos / split / "wolf")
    assert command(tmp_path / "run", config=CONFIG, settings=settings) == 2
    assert "class_names was ['cat', 'dog'], is ['cat', 'wolf']" in capsys.readouterr().err


def test_nothing_heavy_is_imported_for_it(photos):
    """Neither TFDS nor pyarrow is needed."""
    import subprocess

    code = "import sys; sys.modules.update(dict.fromkeys(('tensorflow_datasets', 'pyarrow')))\n"
    code += f"from afd_jax.data import load; load('folder', data_dir={str(photos)!r}, image_size=8)"
    root = pathlib.Path(ROOT)
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
