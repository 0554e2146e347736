"""PCL on CIFAR-100: branches, their ensemble and their averages over time (Wu, Gong; AAAI 2021).

  python -m afd_jax --config=configs/cifar100_pcl.py:resnet32 --workdir=runs/pcl \
      --config.data.data_dir=DIR

What to expect (top-1, the paper, mean and deviation): ResNet-32 74.14 ± 0.16 %, ResNet-110 79.98 %.
"""

import ml_collections

from afd_jax.runs.settings import base_config, parse_arguments, smoke
from afd_jax.runs.presets import cifar100


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what no source of the paper confirms."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("resnet32",))
    config.method = {
        "name": "pcl",
        "branches": 3,
        "shared": 0,  # all stages but the last: assumed
        "temperature": 3.0,
        "distillation_weight": 1.0,
        "ramp_up": 80 / 300,  # of 300 epochs
        "own_augmentation": True,
    }
    cifar100(config)  # assumed
    config.optimizers.logit.nesterov = True  # assumed
    config.optimizers.logit.weight_decay = 5e-4  # assumed
    return smoke(config) if small else config
