"""What changes during training, as pytrees of arrays and nothing else.

Modules, optimizers and settings live in the plan; so a state can be jitted, sharded, donated,
averaged and saved without looking inside.
"""

from typing import Any

import flax.struct
import jax
import numpy as np


@flax.struct.dataclass
class NetworkState:
    """One network with the heads of its nodes: transfer layers, discriminators, ...

    Attributes:
      params: {"network": ..., "heads": {node: {head: ...}}}.
      statistics: the same two keys: all that is no parameter (BatchNorm's running averages), by
        collection.
      optimizers: {"logit" | "feature" | "discriminator": optimizer state}, those that the method
        uses for this network.
    """

    params: Any
    statistics: Any
    optimizers: Any

    @property
    def variables(self) -> dict[str, Any]:
        """Of the network alone, as it takes them: {"params": ..., "batch_stats": ...}."""
        return {"params": self.params["network"], **self.statistics["network"]}


@flax.struct.dataclass
class TrainState:
    """The whole run at one moment; of several seeds, each array has them on its first axis.

    Attributes:
      step: int32 scalar, updates done so far.
      rng: key of the run, as `jax.random.key_data`; step n draws from `fold_in(key, n)`, so
        resuming loses nothing random.
      networks: a state for each, by name.
      memory: the method's own arrays, see `methods.memory`.
    """

    step: jax.Array
    rng: jax.Array
    networks: dict[str, NetworkState]
    memory: Any

    @property
    def steps_done(self) -> int:
        """The step as a number; waits for the device."""
        return int(np.asarray(self.step).flat[0])
