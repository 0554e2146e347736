"""CS-KD, from one's own prediction of a like image, on CIFAR-100 (Yun et al., CVPR 2020).

  python -m afd_jax --config=configs/cifar100_cs_kd.py:preact_resnet18 --workdir=runs/cs_kd \
      --config.data.data_dir=DIR

What to expect (top-1 error, PreAct ResNet-18, another recipe): labels alone 24.18 %, CS-KD
21.30 %.
"""

import ml_collections

from afd_jax.runs.settings import base_config, parse_arguments, smoke
from afd_jax.runs.presets import cifar100


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what no source of the paper confirms."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("preact_resnet18",))
    config.method = {"name": "cs_kd", "temperature": 4.0, "distillation_weight": 1.0}
    cifar100(config)  # assumed
    return smoke(config) if small else config
