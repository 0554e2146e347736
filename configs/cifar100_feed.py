"""Parallel FEED, several frozen teachers' maps at once, on CIFAR-100 (Park, Kwak; ECAI 2020).

  afd-train --config=cifar100_feed:resnet32,resnet32,resnet32 \
      --workdir=runs/feed --config.data.data_dir=DIR

The first name is the student, the others are its teachers: networks, each trained first by the same
recipe in WORKDIR/teacher_0, ..., or folders of finished runs (`:resnet32,runs/teacher`).
Teachers of one name differ by their seeds.

What to expect: we know of no figures for this recipe.
"""

import ml_collections

from afd_jax.runs.presets import cifar100
from afd_jax.runs.settings import base_config, parse_student, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what we could not confirm in the paper or elsewhere."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "resnet32", ("resnet32",) * 5)
    config.method = {
        "name": "feed",
        "norm": "mean",  # assumed: the paper's is a sum, with a weight that is not known to us
        "hint_weight": 500.0,  # assumed
        "label_weight": 1.0,
        "distillation_weight": 0.0,
    }
    cifar100(config)  # assumed
    return smoke(config) if small else config
