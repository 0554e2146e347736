"""Data: sources, held-out splits, the order of batches, and augmentation on the device."""

from afd_jax.data.batches import NumpyBatch, eval_batches, eval_order, train_rows, with_partners
from afd_jax.data.examples import Examples, Splits, channel_statistics
from afd_jax.data.outline import Outline, outline
from afd_jax.data.prefetch import prefetch_to_device
from afd_jax.data.recipe import Recipe
from afd_jax.data.sources import load, load_streamed
from afd_jax.data.streaming import Streamed, eval_stream, train_stream

__all__ = [
    "Examples",
    "NumpyBatch",
    "Outline",
    "Recipe",
    "Splits",
    "Streamed",
    "channel_statistics",
    "eval_batches",
    "eval_order",
    "eval_stream",
    "load",
    "load_streamed",
    "outline",
    "prefetch_to_device",
    "train_rows",
    "train_stream",
    "with_partners",
]
