"""PCL on CIFAR-100: branches, their ensemble and their averages over time (Wu, Gong; AAAI 2021).

  afd-train --config=cifar100_pcl:resnet32 --workdir=runs/pcl \
      --config.data.data_dir=DIR

What to expect (top-1, the paper, means), and which of our networks is the paper's. We take the
figures to be of the first branch's average over time, here "average of branch 0" (assumed; from a
summary of the paper's Algorithm 1):

  ResNet-32       74.14 %  resnet32 (deviation 0.16)
  ResNet-110      79.98 %  okddip_resnet110 (bottleneck blocks, 1,170,868 parameters)
  DenseNet-40-12  73.09 %  okddip_densenet-40-12 (a DenseNet-BC, 188,092)
  VGG-16          76.89 %  okddip_vgg16 (three linear layers, 15,299,748)
  WRN-20-8        80.51 %  okddip_wrn-20-8 (bottleneck blocks, 6,871,220)
"""

import ml_collections

from afd_jax.runs.presets import cifar100
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what we could not confirm in the paper or elsewhere."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("resnet32",))
    config.method = {
        "name": "pcl",
        "branches": 3,
        "shared": 0,  # all stages but the last: assumed
        "temperature": 3.0,
        "distillation_weight": 1.0,
        "ramp_up": 80 / 300,  # of 300 epochs
    }
    config.own_augmentation = True  # each branch sees its own, as published
    config.average_decay = 0.999
    cifar100(config)  # assumed
    config.optimizers.logit.nesterov = True  # assumed
    config.optimizers.logit.weight_decay = 5e-4  # assumed
    return smoke(config) if small else config
