"""Born-again networks on CIFAR-100 (Furlanello et al., ICML 2018): a chain of equal networks.

  afd-train --config=cifar100_ban:resnet32 --workdir=runs/ban \
      --config.data.data_dir=DIR --config.generations=3

The first generation learns from labels. Each later one learns only from the predictions of the one
before; `--config.method.label_weight=1` adds the labels (BAN+L in the paper). They lie in
WORKDIR/generation_1, ...; the last one lies in WORKDIR.

What to expect: we know of no figures for this recipe.
"""

import ml_collections

from afd_jax.runs.presets import cifar100
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what we could not confirm in the paper or elsewhere."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("resnet32",))
    config.generations = 3
    config.method = {
        "name": "kd",
        "temperature": 1.0,
        "label_weight": 0.0,  # BAN; BAN+L has 1
        "distillation_weight": 1.0,
    }
    cifar100(config)  # assumed
    return smoke(config) if small else config
