"""What changes during training, as pytrees of arrays and nothing else.

Modules, optimizers and settings live in `afd_jax.engine.cohort`; so a state can be jitted, sharded,
donated, averaged and saved without looking inside.
"""

from typing import Any

import flax.struct
import jax
import numpy as np


@flax.struct.dataclass
class PeerState:
    """One network with the discriminators it owns.

    Attributes:
      params: {"network": ..., "projections": {name: ...}}.
      statistics: the same two keys: the other Flax collections (BatchNorm's running averages).
      discriminators: {name: {"params": ..., "batch_stats": ...}}.
      optimizers: {"logit" | "feature" | "discriminator": optimizer state}, those that the method
        uses for this node.
    """

    params: Any
    statistics: Any
    discriminators: Any
    optimizers: Any


@flax.struct.dataclass
class TrainState:
    """The whole run at one moment; of several seeds, each array has them on its first axis.

    Attributes:
      step: int32 scalar, updates done so far.
      rng: key of the run, as `jax.random.key_data`; step n draws from `fold_in(key, n)`, so
        resuming loses nothing random.
      peers: one state per network.
      memory: the method's own arrays, see `Method.init_memory`.
    """

    step: jax.Array
    rng: jax.Array
    peers: tuple[PeerState, ...]
    memory: Any

    @property
    def steps_done(self) -> int:
        """The step as a number; waits for the device."""
        return int(np.asarray(self.step).flat[0])
