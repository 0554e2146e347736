"""Online and adversarial feature-map knowledge distillation in JAX and Flax.

    import afd_jax as afd

    afd.losses     pure functions on arrays
    afd.graph      who learns from whom
    afd.networks   architectures by name, and the contract for one's own
    afd.methods    what the nodes and edges of a graph carry
    afd.Cohort     networks and a method, one step at a time
    afd.data       images in memory and from disk
    afd.train      a whole run from settings
    afd.load       a trained network

Each is imported when it is touched; `import afd_jax` itself costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from afd_jax import data, graph, losses, methods, networks
    from afd_jax.engine.cohort import Cohort
    from afd_jax.runs.trained import load
    from afd_jax.runs.trainer import train

__version__ = "0.2.0"

_WHERE = {
    "Cohort": "afd_jax.engine.cohort",
    "load": "afd_jax.runs.trained",
    "train": "afd_jax.runs.trainer",
}
_ROOMS = ("data", "graph", "losses", "methods", "networks")

__all__ = ["Cohort", "data", "graph", "load", "losses", "methods", "networks", "train"]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"afd_jax.{name}")
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'afd_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
