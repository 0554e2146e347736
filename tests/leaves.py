"""The leaves of a tree by name: all, those that are not zero, those that differ from another's."""

import jax
import jax.numpy as jnp
import numpy as np


def _named(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def names(tree, part=""):
    """Those with `part` in their name."""
    return {name for name, _ in _named(tree) if part in name}


def nonzero(tree):
    return {name for name, leaf in _named(tree) if np.any(leaf)}


def changed(before, after):
    pairs = zip(_named(before), jax.tree.leaves(after), strict=True)
    return {
        name
        for (name, a), b in pairs
        if jnp.issubdtype(a.dtype, jnp.number) and not np.array_equal(a, b)
    }
