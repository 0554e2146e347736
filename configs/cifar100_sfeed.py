"""Sequential FEED, a chain of equal networks, on CIFAR-100 (Park, Kwak; ECAI 2020).

  afd-train --config=cifar100_sfeed:resnet32 --workdir=runs/sfeed \
      --config.data.data_dir=DIR --config.generations=3

The first generation learns from labels, each later one from the map of the one before, too; they
lie in WORKDIR/generation_1, ..., the last in WORKDIR.

What to expect: figures under this recipe are not known to us.
"""

import ml_collections

from afd_jax.runs.presets import cifar100
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what no source of the paper confirms."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("resnet32",))
    config.generations = 5  # assumed
    config.method = {
        "name": "feed",
        "norm": "mean",  # assumed, as for the parallel form
        "hint_weight": 500.0,  # assumed
        "label_weight": 1.0,
        "distillation_weight": 0.0,
    }
    cifar100(config)  # assumed
    return smoke(config) if small else config
