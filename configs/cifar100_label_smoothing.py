"""Label smoothing on CIFAR-100 (Szegedy et al., 2016).

  python -m afd_jax --config=configs/cifar100_label_smoothing.py:preact_resnet18 \
      --workdir=runs/smoothing --config.data.data_dir=DIR

What to expect (top-1 error, PreAct ResNet-18, another recipe): labels alone 24.18 %, with smoothing
20.94 %.
"""

import ml_collections

from afd_jax.runs.settings import base_config, parse_arguments, smoke
from afd_jax.runs.presets import cifar100


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what no source of the paper confirms."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("preact_resnet18",))
    config.method = {"name": "independent", "label_smoothing": 0.1}
    cifar100(config)  # assumed
    return smoke(config) if small else config
