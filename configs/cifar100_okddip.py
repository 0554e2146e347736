"""OKDDip on CIFAR-100: peers that weigh each other, and a leader (Chen et al., AAAI 2020).

  python -m afd_jax --config=configs/cifar100_okddip.py:resnet32 --workdir=runs/okddip \
      --config.data.data_dir=DIR

What to expect (top-1, of the leader, node 3): ResNet-110 78.91 % (the paper); ResNet-32 73.25 % (as
measured for PCL, AAAI 2021).
"""

import ml_collections

from afd_jax.runs.settings import base_config, parse_arguments, smoke
from afd_jax.runs.presets import cifar100


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings; those of the method and the schedule are of the authors' code."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("resnet32",))
    config.method = {
        "name": "okddip",
        "branches": 4,  # three peers and the leader
        "shared": 0,  # all stages but the last
        "temperature": 3.0,
        "distillation_weight": 1.0,
        "ramp_up": 80 / 300,  # of 300 epochs
    }
    cifar100(config)  # whose normalisation differs a little from theirs
    config.data.pad_mode = "zero"
    config.optimizers.logit.nesterov = True
    config.optimizers.logit.weight_decay = 5e-4
    return smoke(config) if small else config
