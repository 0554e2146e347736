"""What methods on branches share: one network whose upper stages are there several times."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from afd_jax.errors import SettingError
from afd_jax.graph import Edge, Graph
from afd_jax.methods import options, soft
from afd_jax.methods.method import Method
from afd_jax.networks.branched import Combination, branched


@dataclasses.dataclass(frozen=True)
class BranchMethod(Method):
    """A method that trains branches of one network on shared lower stages.

    Its graph is its own. All branches are trained by one optimizer, on the sum of their losses;
    there are no losses on feature maps.

    Attributes:
      branches: how many.
      shared: number of stages that the branches share, counted from the image; 0 for all but the
        last, as published for ResNets.
      temperature: T.
      distillation_weight: of the distillation losses; 0 leaves them out.
      standardize: compare logits without their shift and scale (LSKD, `losses.standardize`).
      ramp_up: share of the run over which that weight rises (`losses.ramp_up_weight`), published as
        80 of 300 epochs; 0 for none.
    """

    teachers: ClassVar[tuple[int, int | None]] = (0, 0)

    temperature: float = soft.temperature(3.0)
    distillation_weight: float = soft.weight(1.0)
    standardize: bool = soft.standardize()
    ramp_up: float = options.number(80 / 300, least=0, most=1)
    branches: int = options.number(3, least=2, most=64, whole=True)
    shared: int = options.number(0, least=0, whole=True)

    def edges(self, graph: Graph, shape: Any) -> tuple[Edge, ...]:
        """The method's own."""
        if shape != "own":
            remedy = f"{type(self).__name__} has its own; set config.graph='own'"
            raise SettingError("graph", shape, remedy)
        return self.among(graph, graph.students, graph.with_role("ensemble"))

    def among(
        self, graph: Graph, branches: Sequence[str], ensembles: Sequence[str]
    ) -> tuple[Edge, ...]:
        """Who learns from whom."""
        raise NotImplementedError

    def branch(self, name: str, network: Any, classes: int) -> Any:
        """The network in branches."""
        return branched(
            network,
            name,
            branches=self.branches,
            shared=self.shared,
            combination=self.combination(classes),
        )

    def names(self) -> tuple[str, ...]:
        """Of the branches, in order."""
        return tuple(f"branch {i}" for i in range(self.branches))

    def combination(self, classes: int) -> Combination:
        """The method's layers on top of the branches, which name their nodes."""
        raise NotImplementedError
