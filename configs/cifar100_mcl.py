"""Mutual contrastive learning on CIFAR-100, for any networks (Yang et al., AAAI 2022).

  afd-train --config=cifar100_mcl:resnet32,resnet32 --workdir=runs/mcl \
      --config.data.data_dir=DIR

What to expect (top-1, the authors' README, the best network at its best epoch): ResNet-32 70.91 %
alone, 72.96 % in a pair; WRN-16-2 72.55 % alone, 74.56 % in a pair. Their groups of four (74.04 and
75.79 %) share the stem and the first stage; here, networks share nothing.
"""

import ml_collections

from afd_jax.runs.presets import cifar100, zero_padded
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings; those of the authors' code (winycg/MCL)."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("resnet32", "resnet32"))
    config.graph = "all_pairs"
    config.method = {
        "name": "mcl",
        "contrast_weight": 0.1,
        "contrast_temperature": 0.1,
        "distillation_weight": 1.0,  # of similarities
        "temperature": 3.0,
        "size": 128,
    }
    cifar100(config)
    zero_padded(config, ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)))
    config.data.class_pairs = True  # spread evenly over the epoch: assumed
    logit = config.optimizers.logit
    logit.nesterov = True
    logit.weight_decay = 5e-4
    logit.schedule = {"name": "cosine"}
    return smoke(config) if small else config
