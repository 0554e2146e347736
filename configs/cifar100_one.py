"""ONE on CIFAR-100: branches of one network and their gated ensemble (Lan et al., NeurIPS 2018).

  afd-train --config=cifar100_one:resnet32 --workdir=runs/one \
      --config.data.data_dir=DIR

What to expect (top-1, of a branch): ResNet-110 78.38 %, 74.67 % alone (the paper, whose code
reports the best test epoch); ResNet-32 73.79 % (measured for PCL, AAAI 2021). The paper's
ResNet-110 has 18 bottleneck blocks a stage; none of our networks does. `resnet110` has 18 basic
blocks; `okddip_resnet110` has 12 bottleneck blocks (78.40 % in PCL's table).
"""

import ml_collections

from afd_jax.runs.presets import CIFAR10, cifar100, zero_padded
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings; those of the method and the schedule are of the authors' code."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("resnet32",))
    config.method = {
        "name": "one",
        "branches": 3,
        "shared": 0,  # all stages but the last
        "temperature": 3.0,
        "distillation_weight": 1.0,
        "ramp_up": 80 / 300,  # of 300 epochs
    }
    cifar100(config)
    zero_padded(config, CIFAR10)
    config.optimizers.logit.schedule = {"name": "step", "at": (151 / 300, 225 / 300), "factor": 0.1}
    return smoke(config) if small else config
