"""Equal blocks one after another, each with parameters of its own."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from afd_jax.networks.as_written import is_as_written

SCAN_FROM = 8
"""Chains of so many blocks are compiled as one block in a loop.

A shorter chain compiles quickly enough, and its steps are faster written out.
"""


def chain(blocks: Sequence[nn.Module], x: jax.Array, *, train: bool) -> jax.Array:
    """Runs blocks one after another.

    Args:
      blocks: modules with names, bound to the module whose compact method calls this. From the
        second on they are alike but for their names, and keep the shape of their input. What they
        have is parameters and batch_stats.
      x: input of the first.
      train: passed on.
    """
    first, *rest = blocks
    x = first(x, train=train)
    if len(rest) < SCAN_FROM or is_as_written() or first.is_initializing():
        for block in rest:
            x = block(x, train=train)
        return x
    one = rest[0].clone(parent=None, name=None)
    stacked = jax.tree.map(lambda *each: jnp.stack(each), *(block.variables for block in rest))

    def step(x: jax.Array, variables: Any) -> tuple[jax.Array, Any]:
        return one.apply(variables, x, train=train, mutable=["batch_stats"] if train else [])

    x, updated = jax.lax.scan(step, x, stacked)
    for i, block in enumerate(rest):
        for name, values in updated.get("batch_stats", {}).items():
            block.put_variable("batch_stats", name, jax.tree.map(lambda each, i=i: each[i], values))
    return x
