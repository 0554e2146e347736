"""From each device's part of a batch to the whole."""

from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp

from afd_jax import losses


class Reduce:
    """Averages over the batch and, inside pmap or shard_map, over devices.

    Args:
      axis_name: the device axis; None outside of one.
    """

    def __init__(self, axis_name: str | None):
        self.axis_name = axis_name

    def over_devices(self, tree: Any) -> Any:
        """The mean of what each device has."""
        return tree if self.axis_name is None else jax.lax.pmean(tree, self.axis_name)

    def gradient(self, tree: Any, moved: Any) -> tuple[Any, jax.Array]:
        """The mean over devices of what an update moves, zeros for the rest; and its norm.

        In one vector: many small arrays cost more.
        """
        leaves, treedef = jax.tree.flatten(tree)
        masks = jax.tree.leaves(moved)
        own = [leaf for leaf, mask in zip(leaves, masks, strict=True) if mask]
        flat, unravel = jax.flatten_util.ravel_pytree(own)
        if self.axis_name is not None:
            flat = self.over_devices(flat)
            own = unravel(flat)
        given = iter(own)
        pairs = zip(leaves, masks, strict=True)
        whole = [next(given) if mask else jnp.zeros_like(leaf) for leaf, mask in pairs]
        return jax.tree.unflatten(treedef, whole), jnp.linalg.norm(flat)

    def mean(self, values: jax.Array) -> jax.Array:
        """Over all examples of the batch."""
        return self.over_devices(losses.mean(values))

    def any(self, truth: jax.Array) -> jax.Array:
        """Whether it is true on any device."""
        return truth if self.axis_name is None else jax.lax.pmax(truth, self.axis_name)

    def whole(self, tree: Any) -> Any:
        """All devices' examples, along axis 0."""
        if self.axis_name is None:
            return tree
        return jax.lax.all_gather(tree, self.axis_name, tiled=True)

    def place(self, size: int) -> jax.Array:
        """Where each of this device's examples, `size` in number, stands in `whole`."""
        first = 0 if self.axis_name is None else jax.lax.axis_index(self.axis_name) * size
        return first + jnp.arange(size)

    def opposite(self, tree: Any) -> Any:
        """For each example that at the same place counted from the batch's other end.

        Over all devices, so it is the same example on any number of them.
        """
        if self.axis_name is not None:
            size = jax.lax.axis_size(self.axis_name)
            pairs = [(device, size - 1 - device) for device in range(size)]
            tree = jax.tree.map(lambda x: jax.lax.ppermute(x, self.axis_name, pairs), tree)
        return jax.tree.map(lambda x: x[::-1], tree)

    def norm_of_parts(self, square: jax.Array) -> jax.Array:
        """Norm of a gradient with one part per example, each device holding its own examples."""
        square = self.over_devices(square)
        size = 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)
        return jnp.sqrt(square / size)
