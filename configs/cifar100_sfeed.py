"""Sequential FEED, a chain of equal networks, on CIFAR-100 (Park, Kwak; ECAI 2020).

  afd-train --config=cifar100_sfeed:resnet32 --workdir=runs/sfeed \
      --config.data.data_dir=DIR --config.generations=3

The first generation learns from labels, the later ones also from the map of the generation before.
They lie in WORKDIR/generation_1, ...; the last lies in WORKDIR. Here there are 3 in place of 5.

What to expect: we know of no figures for this recipe.
"""

import ml_collections

from afd_jax.runs.presets import cifar100
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what we could not confirm in the paper or elsewhere."""
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
