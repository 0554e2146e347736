"""Crops of images as they are decoded: areas, ratios, flips, and what PIL would give."""

import io

import numpy as np
import pytest
from PIL import Image

from afd_jax.data import crops


def encoded(width=40, height=30, mode="RGB", kind="JPEG", seed=0):
    """A smooth picture, so that what is resized in two ways can be compared."""
    channels = {"RGB": 3, "CMYK": 4, "L": 1}[mode]
    coarse = np.random.default_rng(seed).integers(256, size=(4, 4, channels), dtype=np.uint8)
    image = Image.fromarray(coarse.squeeze(), mode if mode == "CMYK" else None)
    file = io.BytesIO()
    image.resize((width, height), Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("shape", [(90, 60), (60, 90), (64, 64)])
def test_evaluation_keeps_the_centre_of_the_resized_image(shape):
    image = Image.open(io.BytesIO(encoded(*shape)))
    ours = np.asarray(crops.central(image.copy(), 28), np.float64)
    scale = 32 / min(shape)
    width, height = round(shape[0] * scale), round(shape[1] * scale)
    whole = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float64)
    left, top = (width - 28) // 2, (height - 28) // 2
    assert np.abs(ours - whole[top : top + 28, left : left + 28]).max() < 2


def test_crops_have_the_stated_areas_and_ratios():
    draw = np.random.default_rng(0)
    boxes = np.array([crops.random_box(400, 300, draw) for _ in range(2000)])
    left, top, right, bottom = boxes.T
    assert left.min() == top.min() == 0 and right.max() == 400 and bottom.max() == 300
    areas = (right - left) * (bottom - top) / (400 * 300)
    ratios = (right - left) / (bottom - top)
    assert 0.078 < areas.min() < 0.1 and 0.95 < areas.max() <= 1
    assert 0.74 < ratios.min() < 0.76 and 1.32 < ratios.max() < 1.35
    assert abs(np.median(np.log(ratios))) < 0.05
    assert crops.random_box(900, 30, draw) == (430, 0, 470, 30)
    assert crops.random_box(30, 900, draw) == (0, 430, 30, 470)


def test_half_of_the_images_are_flipped():
    ramp = Image.fromarray(np.tile(np.arange(0, 240, 4, np.uint8), (60, 1))).convert("RGB")
    cuts = [
        np.asarray(crops.augmented(ramp, 16, np.random.default_rng(seed)), int)
        for seed in range(400)
    ]
    rising = [cut[:, 8:].mean() > cut[:, :8].mean() for cut in cuts]
    assert 0.4 < np.mean(rising) < 0.6


@pytest.mark.parametrize(("size", "decoded"), [(150, (250, 188)), (64, (125, 94)), (301, None)])
def test_large_jpegs_are_decoded_small_and_look_the_same(size, decoded):
    small, opened = (Image.open(io.BytesIO(encoded(1000, 750))) for _ in range(2))
    whole = opened.copy()  # decoded, so there is nothing left to decode small
    box = (101, 57, 721, 658)
    pixels = [np.asarray(crops.resized(image, box, size), int) for image in (small, whole)]
    assert small.size == (decoded or (1000, 750))
    assert np.abs(pixels[0] - pixels[1]).max() <= 4
