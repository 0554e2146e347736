"""L1 or L2 alignment of feature maps on CIFAR-100: the baseline that AFD's authors find harmful.

  afd-train --config=cifar100_alignment:resnet32,resnet32 --workdir=runs/l1 \
      --config.data.data_dir=DIR

This is L1+KD. `--config.method.distillation_weight=0` leaves the logits to the labels,
`--config.method.distance=l2` takes the squared distance.

What to expect (AFD, Chung et al., ICML 2020): below each network alone, most where architectures
differ most; the figures are not known to us.
"""

import ml_collections

from afd_jax.runs.presets import cifar100, slow_adam
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what we could not confirm in the paper or elsewhere."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("resnet32", "resnet32"))
    config.graph = "cyclic"
    config.method = {
        "name": "alignment",
        "distance": "l1",  # a mean over the map's elements: assumed
        "alignment_weight": 1.0,  # assumed
        "temperature": 3.0,  # assumed
        "distillation_weight": 1.0,
    }
    cifar100(config)  # assumed
    slow_adam(config.optimizers.feature)  # assumed
    return smoke(config) if small else config
