"""What every network returns."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax


@flax.struct.dataclass
class Outputs:
    """One network's answer to a batch.

    Attributes:
      logits: [batch, classes], unnormalised log-probabilities.
      features: [batch, height, width, channels], the last feature map, before pooling; what the
        papers call the output of the feature extractor G.
      stages: the feature maps at the end of each stage (of a branch: its own stages), for methods
        with several hints. The last is `features` before what a network has between its last stage
        and its last map (BatchNorm and ReLU, say). A network of one's own may leave it empty.
      extras: what layers of a method make of these, by name: the map after a transfer layer, say.
      preactivations: `stages` before the ReLU that ends a stage; the same where none does. Empty:
        not known.
    """

    logits: jax.Array
    features: jax.Array
    stages: tuple[jax.Array, ...] = ()
    extras: Mapping[str, jax.Array] = flax.struct.field(default_factory=dict)
    preactivations: tuple[jax.Array, ...] = ()

    @property
    def probabilities(self) -> jax.Array:
        """[batch, classes], float32: the softmax of the logits."""
        return jax.nn.softmax(self.logits.astype(jax.numpy.float32))


def as_nodes(result: Any) -> tuple[Outputs, ...]:
    """A network's answer as one `Outputs` for each of its nodes.

    A network returns `Outputs`, a plain (logits, features) pair, or, if it has several branches, a
    tuple of `Outputs`.
    """
    if isinstance(result, Outputs):
        return (result,)
    return tuple(result) if isinstance(result[0], Outputs) else (Outputs(*result),)
