"""Mixes, erasing and TrivialAugment: their distributions, and their operations against Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from afd_jax.data import Recipe
from afd_jax.data.erase import box, erased
from afd_jax.data.mix import Mix, cutmix_share, mixup_share
from afd_jax.data.trivial import COLOURS, MOVES, OPERATIONS, applied, trivially_augmented
from afd_jax.errors import SettingError

KEYS = jax.random.split(jax.random.key(0), 4000)
IMAGE = np.random.default_rng(0).integers(256, size=(40, 30, 3), dtype=np.uint8)
IMAGE[..., 1] = IMAGE[..., 1] // 3 + 40  # something to stretch


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_weighs_by_a_beta_distribution(alpha):
    shares = jax.vmap(lambda key: mixup_share(key, alpha, 3, 2))(KEYS)
    np.testing.assert_array_equal(shares, np.broadcast_to(shares[:, :1, :1], shares.shape))
    own = np.asarray(shares[:, 0, 0], np.float64)
    assert own.mean() == pytest.approx(0.5, abs=0.03)
    assert own.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


def test_cutmix_cuts_a_box_of_the_drawn_share():
    """A box that lies inside has the drawn share to a pixel's rounding of each side."""
    shares = np.asarray(jax.vmap(lambda key: cutmix_share(key, 1.0, 32, 24))(KEYS))
    assert set(np.unique(shares)) == {0.0, 1.0}
    whole = 0
    for key, share in zip(KEYS[:500], shares[:500], strict=True):
        drawn = float(jax.random.beta(jax.random.split(key, 3)[0], 1.0, 1.0, dtype=jnp.float32))
        rows, columns = (np.flatnonzero(np.any(share == 0, axis)) for axis in (1, 0))
        assert np.sum(share == 0) == len(rows) * len(columns)  # one box without holes
        side = np.sqrt(1 - drawn)
        if len(rows) and rows[0] and columns[0] and rows[-1] < 31 and columns[-1] < 23:
            assert 0 <= 32 * side - len(rows) < 1 + 1e-4
            assert 0 <= 24 * side - len(columns) < 1 + 1e-4
            whole += 1
        else:
            assert len(rows) <= 32 * side + 1e-4 and len(columns) <= 24 * side + 1e-4
    assert whole > 50


def test_the_share_of_cutmix_is_that_of_the_authors_code():
    """Against NumPy written as in the paper's code, with its centre and its cut."""
    rng, sizes = np.random.default_rng(0), []
    for _ in range(20000):
        side = np.sqrt(1 - rng.beta(1, 1))
        height, width = int(32 * side), int(32 * side)
        y, x = rng.integers(32), rng.integers(32)
        y1, y2 = np.clip([y - height // 2, y + height // 2], 0, 32)
        x1, x2 = np.clip([x - width // 2, x + width // 2], 0, 32)
        sizes.append(1 - (y2 - y1) * (x2 - x1) / 1024)
    found = np.asarray(jax.vmap(lambda key: jnp.mean(cutmix_share(key, 1.0, 32, 32)))(KEYS))
    # A box of an odd side has half a pixel more here.
    assert found.mean() == pytest.approx(np.mean(sizes), abs=0.02)
    assert found.std() == pytest.approx(np.std(sizes), abs=0.02)


def test_of_both_mixes_each_batch_gets_one_evenly():
    shares = np.asarray(jax.vmap(lambda key: Mix(1.0, 1.0)(key, 16, 16))(KEYS))
    cut = np.all((shares == 0) | (shares == 1), axis=(1, 2))
    assert cut.mean() == pytest.approx(0.5, abs=0.03)
    flat = shares[~cut]
    np.testing.assert_array_equal(flat, np.broadcast_to(flat[:, :1, :1], flat.shape))
    assert not Mix() and Mix(mixup=0.1) and Mix(cutmix=0.1)


def test_erasing_fills_a_share_of_the_images():
    boxes = np.asarray(jax.vmap(lambda key: box(key, 64, 64))(KEYS))
    for inside in boxes[:200]:
        rows, columns = (np.flatnonzero(np.any(inside, axis)) for axis in (1, 0))
        assert np.sum(inside) == len(rows) * len(columns) > 0
        assert 0.28 < len(rows) / len(columns) < 3.6
    area = boxes.mean(axis=(1, 2))
    assert area.mean() == pytest.approx((0.02 + 0.33) / 2, abs=0.005)
    assert 0.017 < area.min() < 0.03 < 0.31 < area.max() < 0.34
    grey = jnp.full((64, 64, 1), 128, jnp.uint8)
    images = np.asarray(jax.vmap(lambda key: erased(key, grey, 0.25))(KEYS[:2000]))
    touched = images != 128
    assert np.any(touched, axis=(1, 2, 3)).mean() == pytest.approx(0.25, abs=0.03)
    assert touched.mean() == pytest.approx(0.25 * 0.175 * 255 / 256, rel=0.15)
    assert images[touched].mean() == pytest.approx(127.5, abs=1)  # evenly random pixels
    assert np.all(np.asarray(erased(KEYS[0], grey, 0.0)) == 128)


def test_each_operation_is_used_equally_often(monkeypatch):
    seen = jax.vmap(lambda key: jax.random.randint(jax.random.split(key, 3)[0], (), 0, 14))(KEYS)
    assert len(OPERATIONS) == 14
    monkeypatch.setattr(  # the number itself in place of the image
        "afd_jax.data.trivial.applied", lambda operation, image, strength: (operation, strength)
    )
    operations, strengths = jax.vmap(lambda key: trivially_augmented(key, jnp.asarray(IMAGE)))(KEYS)
    np.testing.assert_array_equal(operations, seen)
    counts = np.bincount(operations, minlength=14)
    expected = len(KEYS) / 14
    assert np.sum((counts - expected) ** 2 / expected) < 34.5  # chi-squared, 13: 0.1 %
    strengths = np.asarray(strengths)
    np.testing.assert_allclose(np.unique(np.round(strengths * 30)), np.arange(-30, 31))
    assert np.mean(strengths) == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_changes_at_strength_0(name):
    if name in ("auto_contrast", "equalize"):
        pytest.skip("has no strength")
    found = applied(OPERATIONS.index(name), jnp.asarray(IMAGE), jnp.float32(0))
    np.testing.assert_array_equal(found, IMAGE)


def in_pillow(name, strength):
    image = Image.fromarray(IMAGE)
    if name in ("brightness", "color", "contrast", "sharpness"):
        return getattr(ImageEnhance, name.capitalize())(image).enhance(1 + 0.99 * strength)
    return {
        "identity": lambda: image,
        "posterize": lambda: ImageOps.posterize(image, 8 - round(6 * abs(strength))),
        "solarize": lambda: ImageOps.solarize(image, 255 * (1 - abs(strength))),
        "auto_contrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
    }[name]()


@pytest.mark.parametrize("strength", [-1.0, -0.4, 0.7, 1.0])
@pytest.mark.parametrize("name", COLOURS)
def test_colours_are_changed_as_by_pillow(name, strength):
    found = applied(OPERATIONS.index(name), jnp.asarray(IMAGE), jnp.float32(strength))
    expected = np.asarray(in_pillow(name, strength), int)
    # Pillow cuts off fractions, and rounds what lies between.
    assert np.max(np.abs(np.asarray(found, int) - expected)) <= 2
    assert name == "identity" or np.any(found != IMAGE)


@pytest.mark.parametrize("name", ["brightness", "solarize"])
def test_halves_and_thresholds_are_exact(name):
    """In integers, for every colour and strength: the last bit of a float decides nothing."""
    colours, k = np.meshgrid(np.arange(256), np.arange(1, 31))
    expected = {
        "brightness": np.minimum((colours * (3000 + 99 * k) + 1500) // 3000, 255),
        "solarize": np.where(30 * colours >= 255 * (30 - k), 255 - colours, colours),
    }[name]
    image = jnp.arange(256, dtype=jnp.uint8).reshape(16, 16, 1)
    change = jax.jit(lambda strength: applied(OPERATIONS.index(name), image, strength))
    found = [np.ravel(change(jnp.float32(n) / 30)) for n in range(1, 31)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("strength", [-0.6, 0.1])
@pytest.mark.parametrize("name", MOVES)
def test_pixels_are_moved_as_by_scipy(name, strength):
    angle = np.radians(135 * strength)
    matrix, offset = {
        "shear_x": (
            np.array([[1, 0], [0.99 * strength, 1]]),
            (0, 0.99 * strength * IMAGE.shape[0] / 2),
        ),
        "shear_y": (
            np.array([[1, 0.99 * strength], [0, 1]]),
            (0.99 * strength * IMAGE.shape[1] / 2, 0),
        ),
        "translate_x": (np.eye(2), (0, 32 * strength)),
        "translate_y": (np.eye(2), (32 * strength, 0)),
        "rotate": (
            np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]),
            (0, 0),
        ),
    }[name]
    centre = (np.array(IMAGE.shape[:2]) - 1) / 2
    shift = centre + offset - matrix @ centre
    channels = [
        ndimage.affine_transform(x, matrix, shift, order=1, mode="grid-constant", cval=0)
        for x in np.moveaxis(IMAGE.astype(float), -1, 0)
    ]
    found = applied(OPERATIONS.index(name), jnp.asarray(IMAGE), jnp.float32(strength))
    np.testing.assert_allclose(found, np.stack(channels, -1), atol=0.6)
    assert np.any(found != IMAGE)


@pytest.mark.parametrize("strength", [-1.0, 0.5])
@pytest.mark.parametrize("name", MOVES)
def test_as_much_of_an_image_leaves_it_as_in_pillow(name, strength):
    """Pillow's own calls, as the authors make them, on a white image."""
    white = np.full((32, 32, 3), 255, np.uint8)
    shear, move = 0.99 * strength, 32 * strength
    image = Image.fromarray(white)
    rows = {
        "shear_x": (1, shear, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, shear, 1, 0),
        "translate_x": (1, 0, move, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, move),
    }
    if name in rows:
        theirs = image.transform(image.size, Image.Transform.AFFINE, rows[name])
    else:
        theirs = image.rotate(-135 * strength)  # the sign is drawn, too
    found = applied(OPERATIONS.index(name), jnp.asarray(white), jnp.float32(strength))
    difference = np.abs(np.asarray(found, int) - np.asarray(theirs, int))
    # Where an edge is one pixel wide here, it is sharp there.
    assert np.mean(difference) < 255 * 0.04


def test_a_recipe_draws_for_each_image_by_its_number():
    recipe = Recipe((0.5,) * 3, (0.2,) * 3, trivial_augment=True, erase=0.5)
    batch = {"image": np.stack([IMAGE] * 6), "index": np.array([5, 1, 5, 2, 3, 4])}
    train = jax.jit(recipe.train)
    images = np.asarray(train(jax.random.key(0), batch))
    np.testing.assert_array_equal(images[0], images[2])
    assert all(np.any(images[0] != images[k]) for k in (1, 3, 4, 5))
    half = {name: x[3:] for name, x in batch.items()}
    np.testing.assert_array_equal(images[3:], train(jax.random.key(0), half))
    np.testing.assert_allclose(recipe.test(None, batch), (batch["image"] / 255 - 0.5) / 0.2, 1e-4)


@pytest.mark.parametrize(
    "more", [{"mixup": -1}, {"cutmix": "1"}, {"erase": 2}, {"trivial_augment": 1}]
)
def test_a_bad_augmentation_is_named(more):
    with pytest.raises(SettingError, match=rf"data.{next(iter(more))} = .* must be "):
        Recipe((0.5,), (0.2,), **more)
