"""Equal blocks one after another, each with parameters of its own."""

from collections.abc import Sequence

import jax
from flax import linen as nn

SCAN_FROM = 8
"""So many equal blocks are one block in a loop, whose parameters have an axis for the blocks.

A shorter chain compiles quickly enough, and its steps are faster written out.
"""


def chain(blocks: Sequence[nn.Module], x: jax.Array, *, train: bool) -> jax.Array:
    """Runs blocks one after another.

    In a loop, what the second and later blocks have is kept stacked, [blocks, ...], under the
    second's name followed by "_and_on".

    Args:
      blocks: modules with names, bound to the module whose compact method calls this. From the
        second on they are alike but for their names, and keep the shape of their input. What they
        have is parameters and batch_stats.
      x: input of the first.
      train: passed on.
    """
    first, *rest = blocks
    x = first(x, train=train)
    if len(rest) < SCAN_FROM:
        for block in rest:
            x = block(x, train=train)
        return x

    def step(block: nn.Module, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return block(x, train=train), None

    loop = nn.scan(
        step,
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True},
        length=len(rest),
    )
    one = rest[0].clone(parent=rest[0].parent, name=f"{rest[0].name}_and_on")
    x, _ = loop(one, x, None)
    return x
