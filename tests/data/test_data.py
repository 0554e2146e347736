import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax.data import (
    Examples,
    Recipe,
    channel_statistics,
    eval_batches,
    eval_order,
    load,
    train_rows,
)
from afd_jax.data import examples as examples_module
from afd_jax.data.batches import paired_order
from afd_jax.data.cache import cache_dir
from afd_jax.data.examples import hold_out
from afd_jax.errors import SettingError

# Where a copy of CIFAR-100 prepared by TFDS may be; tests of real data skip without it.
TFDS_DIR = pathlib.Path(
    os.environ.get("TFDS_DATA_DIR")
    or pathlib.Path(__file__).parents[3] / "shared" / "tensorflow_datasets"
)


def examples(count=10):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    return Examples(images, np.arange(count, dtype=np.int32) % 2)


def test_digits_are_all_there_and_split_by_class():
    splits = load("digits", heldout=0.1)
    sizes = [len(part) for part in (splits.train, splits.heldout, splits.test)]
    assert sum(sizes) == 1797 and splits.classes == 10 and splits.image_shape == (8, 8, 1)
    for part in (splits.train, splits.heldout, splits.test):
        shares = np.bincount(part.labels, minlength=10) / len(part)
        assert np.all(np.abs(shares - 0.1) < 0.03)
    pixels = {part.images.tobytes() for part in (splits.train, splits.heldout, splits.test)}
    assert len(pixels) == 3 and splits.train.images.max() == 255
    again = load("digits", heldout=0.1)
    np.testing.assert_array_equal(splits.heldout.images, again.heldout.images)


def test_smaller_images_are_means_of_blocks():
    whole, half = (load("digits", heldout=0.1, image_size=size) for size in (None, 4))
    assert half.image_shape == (4, 4, 1)
    for part in ("train", "heldout", "test"):
        images, ours = getattr(whole, part).images.astype(np.float64), getattr(half, part)
        corners = [images[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        assert ours.images.dtype == np.uint8
        np.testing.assert_array_equal(ours.images, np.rint(np.mean(corners, axis=0)))
        np.testing.assert_array_equal(ours.labels, getattr(whole, part).labels)
    same = load("digits", heldout=0.1, image_size=8).train.images
    np.testing.assert_array_equal(same, whole.train.images)


def test_means_of_blocks_are_rounded_half_to_even(npz):
    blocks = np.array([[[0, 1], [1, 0]], [[2, 1], [1, 2]], [[254, 254], [255, 255]]], np.uint8)
    images = np.tile(blocks[..., None], (4, 4, 4, 1))
    small = load("arrays", data_dir=npz(images=images, test_images=images[:6]), image_size=4)
    for part, count in ((small.train, 12), (small.test, 6)):
        expected = np.tile([0, 2, 254], count // 3)  # of 0.5, 1.5 and 254.5
        np.testing.assert_array_equal(
            part.images, np.ones((1, 4, 4, 1)) * expected[:, None, None, None]
        )


@pytest.mark.skipif(not (TFDS_DIR / "cifar100").is_dir(), reason="no prepared CIFAR-100 here")
def test_cifar100_without_tensorflow():
    splits = load("cifar100", data_dir=str(TFDS_DIR), heldout=0.1)
    assert [len(p) for p in (splits.train, splits.heldout, splits.test)] == [45000, 5000, 10000]
    assert splits.image_shape == (32, 32, 3) and splits.classes == 100
    assert splits.class_names[:2] == ("apple", "aquarium_fish")
    mean, std = channel_statistics(splits.train.images)
    np.testing.assert_allclose(mean, (0.5071, 0.4865, 0.4409), atol=2e-3)
    np.testing.assert_allclose(std, (0.2673, 0.2564, 0.2762), atol=2e-3)
    assert np.all(np.bincount(splits.heldout.labels) == 50)
    cached = sorted(path.name for path in cache_dir("data").glob("cifar100-*/*/*.npy"))
    assert cached == ["images.npy", "images.npy", "labels.npy", "labels.npy"]


def test_every_epoch_is_a_new_permutation_and_any_step_can_be_the_first():
    def rows(start=0, end=6, seeds=(3,)):
        return list(train_rows(10, 5, seeds=seeds, start_step=start, end_step=end))

    batches = rows()
    epochs = [np.concatenate(batches[i : i + 2]) for i in (0, 2, 4)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    np.testing.assert_array_equal(batches[3:], rows(start=3))
    assert not np.array_equal(batches[0], rows(seeds=(4,))[0])
    np.testing.assert_array_equal(np.array(rows(seeds=(4, 3)))[..., 1], batches)


def test_pairs_of_a_class_follow_each_other():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 7], [40, 40, 41, 40]))

    def rows(start=0, end=48, seeds=(3,)):
        options = {"seeds": seeds, "start_step": start, "end_step": end, "labels": labels}
        return list(train_rows(len(labels), 6, **options))

    batches = rows(end=52)
    epochs = [np.concatenate(batches[i : i + 26]) for i in (0, 26)]
    for epoch in epochs:
        assert len({*epoch}) == 156 and np.all(labels[epoch[::2]] == labels[epoch[1::2]])
        rounds = labels[epoch[: 2 * 4 * 19 : 2]].reshape(19, 4)
        assert np.all(np.sort(rounds, axis=1) == [0, 1, 2, 7])  # all classes before one again
        assert len({*map(tuple, rounds.tolist())}) > 6  # in any order
    assert not np.array_equal(epochs[0], epochs[1])
    assert {*epochs[0].reshape(-1, 2).min(1)} != {*epochs[1].reshape(-1, 2).min(1)}
    np.testing.assert_array_equal(batches[31:], rows(start=31, end=52))
    np.testing.assert_array_equal(np.array(rows(end=52, seeds=(4, 3)))[..., 1], batches)


def test_pairs_of_rare_classes_are_spread_over_the_epoch():
    labels = np.repeat([0, 1, 2], [400, 60, 40])
    order = paired_order(labels, np.random.default_rng(0))
    assert np.all(labels[order[::2]] == labels[order[1::2]])
    counts = np.array([np.bincount(labels[own], minlength=3) for own in np.split(order, 10)])
    assert np.abs(counts - [40, 6, 4]).max() <= 2, counts


def test_incomplete_batch_is_left_out():
    batches = list(train_rows(10, 4, seeds=(0,), start_step=0, end_step=4))
    assert all(len(rows) == 4 for rows in batches)
    assert len(set(np.concatenate(batches[:2]))) == 8


def test_evaluation_pads_and_masks_the_last_batch():
    batches = list(eval_batches(examples(10), 4))
    assert [b["mask"].sum() for b in batches] == [4, 4, 2]
    assert all(b["image"].shape == (4, 2, 2, 1) for b in batches)
    seen = np.concatenate([b["image"][b["mask"], 0, 0, 0] for b in batches])
    assert seen.tolist() == eval_order(10).tolist() and sorted(seen) == list(range(10))


def test_evaluation_mixes_the_classes_of_a_sorted_set():
    """Else CKA, which is estimated batch by batch, would be that within one class."""
    sorted_by_class = Examples(np.zeros((400, 1, 1, 1), np.uint8), np.repeat(np.arange(4), 100))
    for batch in eval_batches(sorted_by_class, 100):
        assert np.bincount(batch["label"], minlength=4).min() > 10


def test_hold_out_takes_the_same_share_of_every_class():
    kept, held = hold_out(examples(100), 0.2, seed=0)
    assert np.bincount(held.labels).tolist() == [10, 10] and len(kept) == 80
    both = np.concatenate([kept.images, held.images])[:, 0, 0, 0]
    assert sorted(both) == list(range(100))
    with pytest.raises(SettingError, match=r"data\.heldout = 0\.1"):
        hold_out(examples(4), 0.1, seed=0)


RECIPE = Recipe(mean=(0.5,), std=(0.25,), pad=2, pad_mode="reflect", flip=True)


def uint8_batch(count=64, size=6):
    rng = np.random.default_rng(0)
    image = rng.integers(256, size=(count, size, size, 1), dtype=np.uint8)
    return {"image": jnp.asarray(image), "index": jnp.arange(count, dtype=jnp.int32)}


@pytest.mark.parametrize("mode", ["reflect", "zero"])
def test_augmentation_is_a_crop_of_the_padded_image_perhaps_flipped(mode):
    recipe = Recipe(mean=(0.5,), std=(0.25,), pad=2, pad_mode=mode, flip=True)
    batch = uint8_batch()
    ours = np.asarray(recipe.train(jax.random.key(0), batch))
    numpy_mode = {"reflect": "reflect", "zero": "constant"}[mode]
    corners, flips = set(), []
    for image, result in zip(np.asarray(batch["image"])[..., 0], ours[..., 0], strict=True):
        padded = (np.pad(image, 2, mode=numpy_mode) / 255 - 0.5) / 0.25
        found = [
            (i, j, flip)
            for i in range(5)
            for j in range(5)
            for flip in (False, True)
            if np.allclose(padded[i : i + 6, j : j + 6][:, :: -1 if flip else 1], result, atol=1e-5)
        ]
        assert len(found) == 1
        corners.add(found[0][:2])
        flips.append(found[0][2])
    assert len(corners) > 15 and {i for i, _ in corners} == set(range(5))
    assert 0.3 < np.mean(flips) < 0.7


def test_augmentation_depends_on_step_and_index_not_on_place():
    batch = uint8_batch()
    whole = RECIPE.train(jax.random.key(0), batch)
    part = RECIPE.train(jax.random.key(0), {name: x[48:] for name, x in batch.items()})
    np.testing.assert_array_equal(whole[48:], part)
    assert not np.array_equal(whole, RECIPE.train(jax.random.key(1), batch))


def test_evaluation_only_normalises():
    batch = uint8_batch()
    expected = (np.asarray(batch["image"], np.float64) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(RECIPE.test(jax.random.key(0), batch), expected, atol=1e-5)
    with pytest.raises(TypeError, match="images must be uint8, from 0 to 255, not float32"):
        RECIPE.normalise(RECIPE.normalise(batch["image"]))


@pytest.fixture
def npz(tmp_path):
    def write(**changes):
        images = np.random.default_rng(0).integers(256, size=(12, 8, 8, 1), dtype=np.uint8)
        arrays = {
            "images": images,
            "labels": np.arange(12) % 3,
            "test_images": images[:6],
            "test_labels": np.arange(6) % 3,
        } | changes
        path = tmp_path / "data.npz"
        np.savez(path, **{name: a for name, a in arrays.items() if a is not None})
        return str(path)

    return write


def test_arrays_of_ones_own(npz):
    splits = load("arrays", data_dir=npz())
    assert (len(splits.train), len(splits.heldout), len(splits.test)) == (12, 0, 6)
    assert splits.classes == 3 and splits.image_shape == (8, 8, 1)
    assert splits.class_names == ("0", "1", "2")
    named = load("arrays", data_dir=npz(class_names=["ant", "bee", "cow"]))
    assert named.class_names == ("ant", "bee", "cow")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": None}, "lacks labels"),
        ({"images": np.zeros((12, 8, 8, 1))}, r"uint8 \[n, h, w, c\], not float64"),
        ({"images": np.zeros((12, 8, 8), np.uint8)}, r"not uint8 \(12, 8, 8\)"),
        ({"labels": np.arange(11)}, r"labels must be integers \[12\]"),
        ({"labels": np.full(12, -1)}, "labels must be 0 or more"),
        # Which 32 bits would take for class 1.
        ({"labels": np.full(12, 2**32 + 1)}, "labels go up to 4294967297 for 12 training images"),
        (
            {"labels": np.full(12, 2**32 + 1), "class_names": ["ant", "bee", "cow"]},
            "one for each label 0 to 4294967297",
        ),
        ({"test_images": np.zeros((6, 4, 8, 1), np.uint8)}, "differ in shape"),
        ({"images": np.zeros((12, 1, 8, 8), np.uint8)}, r"images.transpose\(0, 2, 3, 1\)"),
        (
            {"test_images": np.zeros((6, 3, 8, 9), np.uint8)},
            "test_images must be .*channels first",
        ),
        ({"class_names": ["ant", "bee"]}, "different names, one for each label 0 to 2"),
        ({"class_names": ["ant", "bee", "ant"]}, "different names, one for each label"),
        ({"class_names": [["ant", "bee", "cow"]]}, r"a list of texts, not <U3 \(1, 3\)"),
        ({"class_names": [b"ant"] * 3}, r"a list of texts, not .S3 \(3,\)"),
    ],
)
def test_bad_arrays_are_named(npz, changes, words):
    with pytest.raises(SettingError, match=words):
        load("arrays", data_dir=npz(**changes))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: load("cifar10O"), "data.name = 'cifar10O': did you mean 'cifar10"),
        (lambda: load("tfds:no_such_set"), "TFDS has no data set"),
        (
            lambda: load("cifar100", data_dir="/nowhere"),
            "data.data_dir = '/nowhere': no such folder",
        ),
        (lambda: load("arrays", data_dir="/nowhere.npz"), "no such file; give a .npz"),
        (lambda: load("digits", image_size=3), "data.image_size = 3: the images are 8x8; their"),
        (lambda: load("digits", image_size=16), "data.image_size = 16: the images are 8x8; their"),
        (lambda: load("digits", image_size=0), "data.image_size = 0: must be a whole number"),
        (lambda: load("digits", image_size=4.0), "data.image_size = 4.0: must be a whole number"),
        (lambda: load("digits", limit=-1), "data.limit = -1: must be a whole number and at least"),
        (lambda: load("digits", limit=2.5), "data.limit = 2.5: must be a whole number"),
        (lambda: load("digits", heldout=30), "data.heldout = 30: must be a number .* at most 0.9"),
        (lambda: Recipe((0.5,), (0.0,)), "data.std = 0.0"),
        (lambda: Recipe((125.3,), (0.5,)), r"data.mean = \(125.3,\): is a fraction of 255"),
        (lambda: Recipe((0.5,), (63.0,)), r"data.std = \(63.0,\): is a fraction of 255"),
        (lambda: Recipe((0.5,), (1.0,), pad=-1), "data.pad = -1"),
        (lambda: Recipe((0.5,), (1.0,), pad_mode="mirror"), "data.pad_mode = 'mirror'"),
        (lambda: Recipe((0.5,), (1.0,)).check((8, 8, 3)), "data.mean.*3 channels"),
        (lambda: Recipe((0.5,), (1.0,), pad=8).check((8, 8, 1)), "data.pad = 8.*at most 7"),
    ],
)
def test_bad_settings_are_named(make, words):
    with pytest.raises(SettingError, match=words):
        make()


def test_channel_statistics_add_up_over_parts(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 2, 2), np.uint8)
    monkeypatch.setattr(examples_module, "_AT_ONCE", 3)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), rtol=1e-12)


def test_images_that_are_not_square_keep_their_size(npz):
    oblong = np.zeros((12, 8, 4, 1), np.uint8)
    path = npz(images=oblong, test_images=oblong[:6])
    assert load("arrays", data_dir=path).image_shape == (8, 4, 1)
    with pytest.raises(SettingError, match=r"data\.image_size = 4: the images are 8x4"):
        load("arrays", data_dir=path, image_size=4)


def test_data_not_there_is_not_fetched_unasked(tmp_path):
    with pytest.raises(SettingError, match=r"data\.download=True"):
        load("cifar100", data_dir=str(tmp_path))


def test_flips_and_turns_are_drawn_apart():
    """A corner pixel tells the flip, the place of the other tells the angle's sign."""
    recipe = Recipe(mean=(0.0,), std=(1.0,), flip=True, rotate=45.0)
    image = np.zeros((1, 33, 33, 1), np.uint8)
    image[0, 16, 24:] = 255  # an arm to the right
    batch = {"image": np.repeat(image, 200, 0), "index": np.arange(200)}
    turned = np.asarray(recipe.train(jax.random.key(0), batch))[..., 0]
    rows, columns = np.mgrid[:33, :33] - 16
    flipped = (turned * columns).sum((1, 2)) < 0
    # Seen from the centre, a turn one way raises a right arm, and lowers a left one.
    one_way = ((turned * rows).sum((1, 2)) < 0) != flipped
    together = np.mean(flipped == one_way)
    assert 0.35 < together < 0.65
