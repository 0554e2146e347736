"""Data: sources, held-out splits, the order of batches, and augmentation on the device."""

from afd_jax.data.batches import NumpyBatch, eval_batches, train_rows, with_partners
from afd_jax.data.examples import Examples, Splits, channel_statistics
from afd_jax.data.recipe import Recipe
from afd_jax.data.sources import load

__all__ = [
    "Examples",
    "NumpyBatch",
    "Recipe",
    "Splits",
    "channel_statistics",
    "eval_batches",
    "load",
    "train_rows",
    "with_partners",
]
