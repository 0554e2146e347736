"""One network with several upper ends: branches that share the lower stages."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import linen as nn

from afd_jax.errors import SettingError
from afd_jax.networks.outputs import Outputs
from afd_jax.networks.staged import StagedNetwork


class Combination(nn.Module):
    """What a method adds to branches; a subclass overrides what it needs.

    Attributes:
      nodes: names of what it returns: the branches, and perhaps more.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    nodes: tuple[str, ...]
    axis_name: str | None = None

    def prepare(self, shared: jax.Array) -> jax.Array:
        """What the branches get for the map that they begin from; the map itself."""
        return shared

    def __call__(
        self, shared: jax.Array, branches: Sequence[Outputs], *, train: bool
    ) -> tuple[Outputs, ...]:
        """Maps what the branches return to one `Outputs` per node; as they are.

        Args:
          shared: the map that the branches begin from, [batch, height, width, channels] (with views
            [batch, views, ...]).
          branches: one `Outputs` each.
          train: as for a network.
        """
        return tuple(branches)


class Branched(nn.Module):
    """Branches of one network on shared lower stages, as ONE and its relatives train them.

    Attributes:
      network: what shared stages and one branch are together.
      branches: how many.
      shared: number of stages that are shared, counted from the image.
      combination: the method's layers on top of the branches.
      axis_name: device axis over which BatchNorm is synchronised.
    """

    network: nn.Module
    branches: int
    shared: int
    combination: Combination
    axis_name: str | None = None

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the outputs: the branches first."""
        return self.combination.nodes

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[Outputs, ...]:
        """Maps images to one `Outputs` for each name in `nodes`.

        Args:
          images: [batch, height, width, channels], for all branches; or [batch, branches, height,
            width, channels], one view for each.
          train: BatchNorm takes the batch's own statistics, in the shared layers of all views.
        """
        views = images.ndim == 5
        flat = images.reshape(-1, *images.shape[2:]) if views else images

        def part(name: str) -> Any:
            return self.network.clone(parent=self, name=name, axis_name=self.axis_name)

        shared = part("shared").lower(flat, train=train, stages=self.shared)
        heads = self.combination.clone(parent=self, name="heads", axis_name=self.axis_name)
        if views:
            shared = shared.reshape(*images.shape[:2], *shared.shape[1:])
        shared = heads.prepare(shared)
        outputs = [
            part(f"branch{i}").upper(
                shared[:, i] if views else shared, train=train, stages=self.shared
            )
            for i in range(self.branches)
        ]
        return heads(shared, outputs, train=train)


def single(
    module: nn.Module, variables: Mapping[str, Any], index: int
) -> tuple[nn.Module, dict[str, Any], int]:
    """What is needed to use one of a network's nodes by itself.

    Args:
      module: a network, in branches or not.
      variables: of it, {"params": ..., "batch_stats": ...}; shapes will do.
      index: of the node.

    Returns:
      (module, variables, which of the module's outputs): for a branch the plain network, made of
      the shared stages and the branch; else the whole.

    Raises:
      SettingError: if a branch and the shared stages have layers of one name.
    """
    if not isinstance(module, Branched) or index >= module.branches:
        return module, dict(variables), index
    params = variables["params"]
    both = {*params.get("shared", {})} & {*params.get(f"branch{index}", {})}
    if both:
        name = type(module.network).__name__
        remedy = f"{name} names layers of several stages alike; give each layer a name of its own"
        raise SettingError("networks", sorted(both), remedy)
    own = {
        collection: {**tree.get("shared", {}), **tree.get(f"branch{index}", {})}
        for collection, tree in variables.items()
    }
    return module.network, own, 0


def branched(
    network: nn.Module, name: str, *, branches: int, shared: int, combination: Combination
) -> Branched:
    """Checks that a network can be cut and builds the branches.

    Args:
      network: a `StagedNetwork`.
      name: for errors.
      branches: how many, at least 2.
      shared: number of shared stages; 0 for all but the last.
      combination: as in `Branched`.

    Raises:
      SettingError: if it cannot be cut there.
    """
    if not isinstance(network, StagedNetwork):
        remedy = "has no stages to share; take one of afd_jax.networks, or a StagedNetwork"
        raise SettingError("networks", name, remedy)
    most = network.stage_count - 1
    if not most:
        raise SettingError("networks", name, "has one stage, so none can be shared")
    if shared not in range(most + 1):
        remedy = f"{name} has {most + 1} stages, of which 1 to {most} can be shared (0: {most})"
        raise SettingError("method.shared", shared, remedy)
    return Branched(network, branches, shared or most, combination)
