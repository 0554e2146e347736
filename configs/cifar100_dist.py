"""DIST, which keeps relations among predictions, on CIFAR-100 (Huang et al., NeurIPS 2022).

  afd-train --config=cifar100_dist:resnet32,resnet110 --workdir=runs/dist \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers, as in cifar100_kd.

What to expect: we have no figures of this recipe from a source that we could check.

MobileNetV2 and the ShuffleNets learn at a rate of 0.01: train their teachers by themselves, and
give the folders (`:mobilenet_v2,runs/vgg13`).
"""

import ml_collections

from afd_jax.runs.presets import cifar100_240
from afd_jax.runs.settings import base_config, parse_student, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings, by the recipe of the public table (HobbitLong/RepDistiller)."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "resnet32", ("resnet110",))
    config.method = {
        "name": "dist",
        "temperature": 4.0,  # assumed; 1 is the default of the authors' code
        "label_weight": 1.0,
        "inter_class_weight": 2.0,  # assumed; likewise
        "intra_class_weight": 2.0,  # assumed; likewise
    }
    cifar100_240(config, config.networks)
    return smoke(config) if small else config
