"""Digits with few labels: scikit-learn's 1,797 images, split into training, held-out and test."""

import os
import pathlib
import tempfile

import ml_collections
import numpy as np

from afd_jax.data.cache import cache_dir
from afd_jax.data.examples import even_order

IMAGES = 1797
TEST = 797  # the same for all seeds; the other 1,000 are the pool


def few_labels(config: ml_collections.ConfigDict, seed: int, *, labels: int, choose: bool) -> None:
    """Trains on a class-balanced subset of the pool, drawn anew for each seed.

    Args:
      config: receives the data settings.
      seed: of the draw.
      labels: number of training images; 1,000 is the whole pool.
      choose: to choose settings: evaluate on the rest of the pool, not on the test images.
    """
    name = f"{labels}-of-{IMAGES - TEST}-{seed}-{'choose' if choose else 'test'}.npz"
    file = cache_dir("data", "few_labels", name)
    if not file.is_file():
        _write(file, labels, seed, choose)
    config.data.name = "arrays"
    config.data.data_dir = str(file)
    config.data.mean, config.data.std = (0.3053,), (0.3759,)  # of all 1,797 images


def _write(file: pathlib.Path, labels: int, seed: int, choose: bool) -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    order = np.random.default_rng(0).permutation(len(images))
    test, pool = order[:TEST], order[TEST:]
    pool = pool[even_order(bunch.target[pool], seed)]
    train, rest = pool[:labels], pool[labels:]
    seen = rest if choose else test
    arrays = {
        "images": images[train],
        "labels": bunch.target[train].astype(np.int32),
        "test_images": images[seen],
        "test_labels": bunch.target[seen].astype(np.int32),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    number, aside = tempfile.mkstemp(dir=file.parent, suffix=".npz")
    os.close(number)
    np.savez(aside, **arrays)
    os.replace(aside, file)
