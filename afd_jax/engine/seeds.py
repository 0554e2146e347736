"""Several seeds in one program: the same functions over a leading axis of the state.

One seed has no such axis.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from afd_jax import speedups


def split(tree: Any, count: int) -> list[Any]:
    """One tree per seed."""
    if count == 1:
        return [tree]
    return [jax.tree.map(lambda x, s=s: x[s], tree) for s in range(count)]


def join(trees: Sequence[Any]) -> Any:
    """One tree of all seeds."""
    return trees[0] if len(trees) == 1 else jax.tree.map(lambda *each: jnp.stack(each), *trees)


def mapped(
    function: Callable[..., Any], count: int, in_axes: Sequence[int | None]
) -> Callable[..., Any]:
    """The function over all seeds; itself for one seed.

    Args:
      function: of positional arguments.
      count: number of seeds.
      in_axes: for each argument the axis of seeds, as for `jax.vmap`, or None.
    """
    if count == 1:
        return function
    if not speedups.seeds_take_turns(jax.default_backend()):
        return jax.vmap(function, in_axes)

    def in_turns(*args: Any) -> Any:
        def one(seed: jax.Array) -> Any:
            own = (
                arg if axis is None else jax.tree.map(lambda x, a=axis: jnp.take(x, seed, a), arg)
                for arg, axis in zip(args, in_axes, strict=True)
            )
            return function(*own)

        return jax.lax.map(one, jnp.arange(count))

    return in_turns
