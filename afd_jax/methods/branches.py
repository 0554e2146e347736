"""What methods on branches share: one network whose upper stages are there several times."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from flax import linen as nn

from afd_jax.errors import SettingError, require_number
from afd_jax.graph import Edge, Graph
from afd_jax.methods.logits import LogitMethod
from afd_jax.networks.branched import Combination, branched


@dataclasses.dataclass(frozen=True)
class BranchMethod(LogitMethod):
    """A method that trains branches of one network on shared lower stages.

    Its graph is its own: the branches are the first nodes. All of them are trained by one
    optimizer, on the sum of their losses; there are no losses on feature maps.

    Attributes:
      branches: how many.
      shared: number of stages that the branches share, counted from the image; 0 for all but the
        last, as published for ResNets.
      ramp_up: as in `LogitMethod`; published as 80 of 300 epochs.

    Raises:
      SettingError: if a number is out of range.
    """

    graph: Graph = dataclasses.field(init=False)
    teachers: int = dataclasses.field(default=0, init=False)
    ramp_up: float = 80 / 300
    branches: int = 3
    shared: int = 0

    teacher_count: ClassVar[tuple[int, int | None]] = (0, 0)
    takes_twins: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.second_forward:
            remedy = "has no effect on branches, which have no losses on maps; leave it out"
            raise SettingError("method.second_forward", self.second_forward, remedy)
        require_number("method.branches", self.branches, least=2, whole=True)
        require_number("method.shared", self.shared, least=0, whole=True)
        object.__setattr__(self, "graph", Graph(*self.make_graph()))

    @classmethod
    def from_settings(
        cls, shape: Any, networks: Sequence[str], options: Mapping[str, Any], teachers: int = 0
    ) -> "BranchMethod":
        """As in `Method`; there is one network, and the graph must be "own"."""
        if shape != "own":
            raise SettingError(
                "graph", shape, f"{cls.__name__} has its own; set config.graph='own'"
            )
        if len(networks) != 1:
            remedy = f"{cls.__name__} branches one network; name one, --config=FILE:resnet32"
            raise SettingError("networks", tuple(networks), remedy)
        return cls(**options)

    @property
    def network_count(self) -> int:
        """One."""
        return 1

    def branch(self, name: str, network: nn.Module) -> nn.Module:
        """The network in branches."""
        return branched(
            network,
            name,
            branches=self.branches,
            shared=self.shared,
            combination=self.combination(network),
        )

    def branch_names(self) -> tuple[str, ...]:
        """Of the branches, in order."""
        return tuple(f"branch {i}" for i in range(self.branches))

    def make_graph(self) -> tuple[int, tuple[Edge, ...]]:
        """Number of nodes, and who learns from whom."""
        raise NotImplementedError

    def combination(self, network: nn.Module) -> Combination:
        """The method's layers on top of the branches of `network`."""
        raise NotImplementedError
