"""DIST, which keeps relations among predictions, on CIFAR-100 (Huang et al., NeurIPS 2022).

  afd-train --config=cifar100_dist:resnet32,resnet110 --workdir=runs/dist \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers, as in cifar100_kd.

What to expect (top-1, the authors' README, means of several runs; it does not say whether of the
best or of the last epoch):

  student, teacher             DIST
  resnet20,resnet56            71.75
  resnet8x4,resnet32x4         76.31
  wrn-40-1,wrn-40-2            74.43
  mobilenet_v2,cifar_resnet50  68.66
  shufflenet_v1,resnet32x4     76.34
  shufflenet_v2,resnet32x4     77.35

MobileNetV2 and the ShuffleNets learn at a rate of 0.01: train their teachers by themselves, and
give the folders (`:mobilenet_v2,runs/vgg13`).
"""

import ml_collections

from afd_jax.runs.presets import cifar100_240
from afd_jax.runs.settings import base_config, parse_student, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings, those of the authors' code (hunto/image_classification_sota)."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "resnet32", ("resnet110",))
    config.method = {
        "name": "dist",
        "temperature": 4.0,
        "label_weight": 1.0,
        "inter_class_weight": 2.0,
        "intra_class_weight": 2.0,
    }
    cifar100_240(config, config.networks)
    return smoke(config) if small else config
