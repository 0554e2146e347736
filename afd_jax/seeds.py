"""Several seeds in one program: the same functions, mapped over a leading axis of the state.

One seed has no such axis.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp


def split(tree: Any, count: int) -> list[Any]:
    """One tree per seed."""
    if count == 1:
        return [tree]
    return [jax.tree.map(lambda x, s=s: x[s], tree) for s in range(count)]


def join(trees: Sequence[Any]) -> Any:
    """One tree of all seeds."""
    return trees[0] if len(trees) == 1 else jax.tree.map(lambda *each: jnp.stack(each), *trees)


def mapped(
    function: Callable[..., Any], count: int, in_axes: int | Sequence[int | None]
) -> Callable[..., Any]:
    """The function over all seeds, with `in_axes` as for `jax.vmap`; itself for one seed."""
    return function if count == 1 else jax.vmap(function, in_axes)
