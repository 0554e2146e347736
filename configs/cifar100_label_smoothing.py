"""Label smoothing on CIFAR-100 (Szegedy et al., 2016).

  afd-train --config=cifar100_label_smoothing:preact_resnet18 \
      --workdir=runs/smoothing --config.data.data_dir=DIR

What to expect (top-1 error, PreAct ResNet-18, this recipe, as measured for PS-KD): labels alone
24.18 %, with smoothing 20.94 %.
"""

import ml_collections

from afd_jax.runs.presets import CIFAR10, cifar100, zero_padded
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings; the schedule is of PS-KD's code, whose authors compare with it."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("preact_resnet18",))
    config.method = {"name": "independent", "label_smoothing": 0.1}
    cifar100(config)
    zero_padded(config, CIFAR10)
    config.optimizers.logit.nesterov = True
    config.optimizers.logit.weight_decay = 5e-4
    return smoke(config) if small else config
