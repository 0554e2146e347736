"""What the page knows of a run: the records of its folder, and what its networks did on images."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from afd_jax.reports.facts import Facts


@dataclasses.dataclass(frozen=True)
class Sights:
    """One image, and where networks saw the class that they predicted.

    Attributes:
      label: name of its class.
      image: as a PNG.
      networks: by node (predicted class's name, its probability, the image under the heat as PNG).
    """

    label: str
    image: bytes
    networks: Mapping[str, tuple[str, float, bytes]]


@dataclasses.dataclass(frozen=True)
class RunRecords:
    """One run.

    Attributes:
      name: short, unique on the page.
      folder: as it was asked for.
      settings: what config.json holds.
      defaults: `base_config()` in the same form.
      facts: as from `facts.graph_facts`; what graph.json holds.
      data: what data.json holds.
      metrics: the lines of metrics.jsonl.
      summary: what summary.json holds; None if the run is not finished.
      rates: learning rates by update, [(epoch, rate), ...].
      generations: networks of the generations before, as in a summary.
      teachers: what teachers.json holds.
      analysis: as from `analysis.analyse`, of one seed; None if it could not be made.
      sights: Grad-CAM of some test images.
      seed: of `analysis` and `sights`.
      missing: sentences on what is left out, and why.
    """

    name: str
    folder: str
    settings: Mapping[str, Any]
    defaults: Mapping[str, Any]
    facts: Facts
    data: Mapping[str, Any]
    metrics: Sequence[dict[str, Any]]
    summary: Mapping[str, Any] | None = None
    rates: Mapping[str, Sequence[tuple[float, float]]] = dataclasses.field(default_factory=dict)
    generations: Sequence[Mapping[str, Any]] = ()
    teachers: Sequence[Mapping[str, Any]] = ()
    analysis: Mapping[str, Any] | None = None
    sights: Sequence[Sights] = ()
    seed: int = 0
    missing: Sequence[str] = ()

    @property
    def seeds(self) -> list[int]:
        """Of the run."""
        first = self.settings["seed"]
        return list(range(first, first + self.settings["seeds"]))
