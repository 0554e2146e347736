"""Equal blocks one after another, each with parameters of its own."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
from flax import linen as nn

SCAN_FROM = 8
"""So many equal blocks are one block in a loop, whose parameters have an axis for the blocks.

A shorter chain compiles quickly enough, and its steps are faster written out.
"""

_written_out = contextvars.ContextVar("written_out", default=False)


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """A context: what is traced inside it has no loop, for formats that cannot hold one."""
    token = _written_out.set(True)
    try:
        yield
    finally:
        _written_out.reset(token)


def chain(
    blocks: Sequence[nn.Module],
    x: jax.Array,
    *,
    train: bool,
    between: Callable[[jax.Array], jax.Array] = lambda x: x,
) -> jax.Array:
    """Runs blocks one after another.

    In a loop, what the second and later blocks have is kept stacked, [blocks, ...], under the
    second's name followed by "_and_on".

    Args:
      blocks: modules with names, bound to the module whose compact method calls this. From the
        second on they are alike but for their names, and keep the shape of their input. What they
        have is parameters and batch_stats.
      x: input of the first.
      train: passed on.
      between: what comes between two blocks, ReLU, say.
    """
    first, *rest = blocks
    x = first(x, train=train)
    if len(rest) < SCAN_FROM:
        for block in rest:
            x = block(between(x), train=train)
        return x

    def step(block: nn.Module, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return block(between(x), train=train), None

    one = rest[0].clone(parent=rest[0].parent, name=f"{rest[0].name}_and_on")
    if _written_out.get():
        for n in range(len(rest)):
            own = functools.partial(jax.tree.map, lambda stack, n=n: stack[n])
            x, _ = nn.map_variables(step, ("params", "batch_stats"), own)(one, x, None)
        return x
    loop = nn.scan(
        step,
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True},
        length=len(rest),
    )
    x, _ = loop(one, x, None)
    return x
