"""Networks that learn from the labels alone, on CIFAR-100: the baseline of all methods.

  afd-train --config=cifar100_independent:resnet32 --workdir=runs/alone \
      --config.data.data_dir=DIR

What to expect (top-1): ResNet-32 69.38 % (AFD, Chung et al., ICML 2020), 68.8 to 70.0 % elsewhere.
"""

import ml_collections

from afd_jax.runs.presets import cifar100
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("resnet32",))
    config.method = {"name": "independent"}
    cifar100(config)  # assumed
    return smoke(config) if small else config
