"""OKDDip on CIFAR-100: peers that weigh each other, and a leader (Chen et al., AAAI 2020).

  afd-train --config=cifar100_okddip:resnet32 --workdir=runs/okddip \
      --config.data.data_dir=DIR

What to expect (top-1, of the leader), and which of our networks is the paper's:

  ResNet-32       73.25 %  resnet32
  ResNet-110      78.91 %  okddip_resnet110 (bottleneck blocks, 1,170,868 parameters)
  DenseNet-40-12  71.23 %  okddip_densenet-40-12 (a DenseNet-BC, 188,092)
  VGG-16          74.68 %  okddip_vgg16 (three linear layers, 15,299,748)
  WRN-20-8        78.83 %  okddip_wrn-20-8 (bottleneck blocks, 6,871,220)

ResNet-110 is from the paper, whose code reports the best test epoch; the others were measured for
PCL (AAAI 2021). Cut into branches, the authors' VGG-16 and DenseNet differ from ours: see
docs/assumptions.md.
"""

import ml_collections

from afd_jax.runs.presets import CIFAR100, cifar100, zero_padded
from afd_jax.runs.settings import base_config, parse_arguments, smoke


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
    cifar100(config)
    zero_padded(config, CIFAR100)
    config.optimizers.logit.nesterov = True
    config.optimizers.logit.weight_decay = 5e-4
    return smoke(config) if small else config
