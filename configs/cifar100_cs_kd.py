"""CS-KD, from one's own prediction of a like image, on CIFAR-100 (Yun et al., CVPR 2020).

  afd-train --config=cifar100_cs_kd:preact_resnet18 --workdir=runs/cs_kd \
      --config.data.data_dir=DIR

What to expect (top-1 error, PreAct ResNet-18, as measured for PS-KD, by its recipe): labels alone
24.18 %, CS-KD 21.30 %.
"""

import ml_collections

from afd_jax.runs.presets import CIFAR10, cifar100, zero_padded
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings; those of the authors' code (alinlab/cs-kd)."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("preact_resnet18",))
    config.method = {"name": "cs_kd", "temperature": 4.0, "distillation_weight": 1.0}
    cifar100(config)
    zero_padded(config, CIFAR10)
    config.duration = "200 epochs"
    # The authors' code lowers the rate at the end of its epochs 100 and 150, counted from 0.
    at = (101 / 200, 151 / 200)
    config.optimizers.logit.schedule = {"name": "step", "at": at, "factor": 0.1}
    return smoke(config) if small else config
