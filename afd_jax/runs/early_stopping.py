"""Ending a run when what it watches on the held-out images has ceased to fall."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from afd_jax.errors import SettingError, one_of, require_number
from afd_jax.graph import Graph

WATCHED = ("divergence", "cross_entropy")


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """When a run ends before its last step, as settings have it.

    Attributes:
      patience: so many evaluations in a row that bring nothing lower end the run; 0: none do.
      watch: "divergence" of the students from their sources, or their "cross_entropy".

    Raises:
      SettingError: for a patience that is no whole number from 0, or an unknown `watch`.

    >>> stopping = EarlyStopping(patience=2)
    >>> stopping.verdict([(10, 0.5), (20, 0.3), (30, 0.4)])
    >>> stopping.verdict([(10, 0.5), (20, 0.3), (30, 0.4), (40, 0.3)])["least_step"]
    20
    """

    patience: int = 0
    watch: str = "divergence"

    def __post_init__(self) -> None:
        require_number("early_stopping.patience", self.patience, least=0, whole=True)
        if self.watch not in WATCHED:
            raise SettingError("early_stopping.watch", self.watch, one_of(self.watch, WATCHED))

    @property
    def divergence(self) -> bool:
        """Whether divergences are watched."""
        return self.patience > 0 and self.watch == "divergence"

    def require_heldout(self, share: float) -> None:
        """Raises SettingError if there is nothing to watch it on."""
        if self.patience and not share:
            remedy = "early stopping watches held-out images; keep some, such as 0.1, "
            raise SettingError("data.heldout", share, remedy + "or set early_stopping.patience=0")

    def require_edges(self, graph: Graph) -> None:
        """Raises SettingError if divergences are watched and no student has a source."""
        if self.divergence and not any(map(graph.sources, graph.students)):
            remedy = "in this graph nobody learns from another node; watch 'cross_entropy'"
            raise SettingError("early_stopping.watch", self.watch, remedy)

    def value(self, record: Mapping[str, Any], students: Sequence[str]) -> float:
        """What is watched, of an evaluation record averaged over seeds: the students' mean."""
        of = record[self.watch]
        return statistics.fmean(of[name] for name in students if name in of)

    def verdict(self, watched: Sequence[Sequence[Any]]) -> dict[str, Any] | None:
        """Why the run ends after these evaluations, as JSON values; None if it goes on.

        Args:
          watched: step and value of each evaluation so far.
        """
        least = min(watched, key=lambda own: own[1], default=None)  # of equal ones the first
        if not self.patience or least is None:
            return None
        step, value = watched[-1]
        if sum(own[0] > least[0] for own in watched) < self.patience:
            return None
        return {
            **dataclasses.asdict(self),
            "step": step,
            "value": value,
            "least": least[1],
            "least_step": least[0],
        }
