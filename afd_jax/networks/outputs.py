"""What every network returns."""

from collections.abc import Mapping

import flax.struct
import jax


@flax.struct.dataclass
class Outputs:
    """One network's answer to a batch.

    Attributes:
      logits: [batch, classes], unnormalised log-probabilities.
      features: [batch, height, width, channels], the last feature map, before pooling; what the
        papers call the output of the feature extractor G.
      stages: the feature maps at the end of each stage, from the image to `features`, which is the
        last; for methods with several hints. A network of one's own may leave it empty.
      projected: the map after the method's own layers (a transfer layer, say), by name; filled in
        by the step, networks leave it empty.
    """

    logits: jax.Array
    features: jax.Array
    stages: tuple[jax.Array, ...] = ()
    projected: Mapping[str, jax.Array] = flax.struct.field(default_factory=dict)
