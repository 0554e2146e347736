"""PS-KD, from one's own predictions of the last epoch, on CIFAR-100 (Kim et al., ICCV 2021).

  python -m afd_jax --config=configs/cifar100_ps_kd.py:preact_resnet18 --workdir=runs/ps_kd \
      --config.data.data_dir=DIR

What to expect (top-1 error, PreAct ResNet-18, the authors' recipe): labels alone 24.18 %, PS-KD
20.82 %.
"""

import ml_collections

from afd_jax.runs.settings import base_config, parse_arguments, smoke
from afd_jax.runs.presets import cifar100


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what no source of the paper confirms."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("preact_resnet18",))
    config.method = {"name": "ps_kd", "past_weight": 0.8}
    cifar100(config)  # assumed
    return smoke(config) if small else config
