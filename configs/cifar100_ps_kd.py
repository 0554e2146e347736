"""PS-KD, from one's own predictions of the last epoch, on CIFAR-100 (Kim et al., ICCV 2021).

  afd-train --config=cifar100_ps_kd:preact_resnet18 --workdir=runs/ps_kd \
      --config.data.data_dir=DIR

What to expect (top-1 error, PreAct ResNet-18, this recipe, by the authors): labels alone 24.18 %,
PS-KD 20.82 %.
"""

import ml_collections

from afd_jax.runs.presets import CIFAR10, cifar100, zero_padded
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings; those of the authors' code (lgcnsai/PS-KD-Pytorch)."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("preact_resnet18",))
    config.method = {"name": "ps_kd", "past_weight": 0.8}
    cifar100(config)
    zero_padded(config, CIFAR10)
    config.optimizers.logit.nesterov = True
    config.optimizers.logit.weight_decay = 5e-4
    return smoke(config) if small else config
