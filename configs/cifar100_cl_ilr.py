"""CL-ILR on CIFAR-100: branches that learn from the mean of the others (Song, Chai; NeurIPS 2018).

  afd-train --config=cifar100_cl_ilr:resnet32 --workdir=runs/cl_ilr \
      --config.data.data_dir=DIR

What to expect: no figure of the paper's is known to us.
"""

import ml_collections

from afd_jax.runs.presets import CIFAR100, cifar100, zero_padded
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings, as OKDDip's authors compare with it; what the paper has is not known to us."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("resnet32",))
    config.method = {
        "name": "cl_ilr",
        "branches": 4,
        "shared": 0,  # all stages but the last
        "temperature": 3.0,
        "distillation_weight": 1.0,
        "ramp_up": 80 / 300,  # of 300 epochs
    }
    cifar100(config)
    zero_padded(config, CIFAR100)
    config.optimizers.logit.nesterov = True
    config.optimizers.logit.weight_decay = 5e-4
    return smoke(config) if small else config
