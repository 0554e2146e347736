"""Deep mutual learning on CIFAR-100, for any networks (Zhang et al., CVPR 2018).

  afd-train --config=cifar100_dml:resnet32,resnet32 --workdir=runs/dml \
      --config.data.data_dir=DIR

The loss is the published one, T = 1. `--config.method.temperature=3` gives the softened form (with
T²) that AFD is compared with. The schedule is AFD's, so that the two are compared under one recipe.

What to expect (with other networks and recipes, top-1): WRN-28-10 alone 78.69 %, in a pair 80.28
and 80.08 % (the paper); ResNet-32 73.68 % (as measured for PCL, AAAI 2021).
"""

import ml_collections

from afd_jax.runs.presets import cifar100
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("resnet32", "resnet32"))
    config.graph = "all_pairs"
    config.method = {
        "name": "dml",
        "temperature": 1.0,
        "distillation_weight": 1.0,
    }
    cifar100(config)  # assumed
    return smoke(config) if small else config
