"""Decoupled knowledge distillation on CIFAR-100 (Zhao et al., CVPR 2022).

  afd-train --config=cifar100_dkd:resnet32,resnet110 --workdir=runs/dkd \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers, as in cifar100_kd.

What to expect (top-1, best epoch; from LSKD's README, which repeats DKD's figures and adds
resnet20,resnet110; shufflenet_v1 from DKD's own README):

  student, teacher             alone  teacher     KD    DKD
  resnet32,resnet110           71.14    74.31  73.08  74.11
  resnet20,resnet110           69.06    74.31  70.67  71.06
  resnet20,resnet56            69.06    72.34  70.66  71.97
  resnet8x4,resnet32x4         72.50    79.42  73.33  76.32
  wrn-16-2,wrn-40-2            73.26    75.61  74.92  76.24
  wrn-40-1,wrn-40-2            71.98    75.61  73.54  74.81
  vgg8,vgg13                   70.36    74.64  72.98  74.68
  mobilenet_v2,vgg13           64.60    74.64  67.37  69.71
  mobilenet_v2,cifar_resnet50  64.60    79.34  67.35  70.35
  shufflenet_v1,resnet32x4     70.50    79.42  74.07  76.45
  shufflenet_v2,resnet32x4     71.82    79.42  74.45  77.07
  shufflenet_v1,wrn-40-2       70.50    75.61  74.83  76.70

The weight of the other classes depends on the pair. It is looked up by names; where a teacher is a
folder, set it: `--config.method.other_classes_weight=6`.

MobileNetV2 and the ShuffleNets learn at a rate of 0.01: train their teachers by themselves, and
give the folders (`:mobilenet_v2,runs/vgg13`).
"""

import ml_collections

from afd_jax.runs.presets import cifar100_240
from afd_jax.runs.settings import base_config, parse_student, smoke

_WEIGHTS = {
    ("resnet20", "resnet56"): 2.0,
    ("resnet32", "resnet110"): 2.0,
    ("resnet20", "resnet110"): 2.0,  # assumed, like the two pairs above
    ("wrn-16-2", "wrn-40-2"): 6.0,
    ("wrn-40-1", "wrn-40-2"): 6.0,
    ("vgg8", "vgg13"): 6.0,
    ("mobilenet_v2", "vgg13"): 6.0,
}


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings, those of the authors' code (megvii-research/mdistiller)."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "resnet32", ("resnet110",))
    config.method = {
        "name": "dkd",
        "temperature": 4.0,
        "label_weight": 1.0,
        "target_class_weight": 1.0,
        "other_classes_weight": _WEIGHTS.get((*config.networks, *config.teachers), 8.0),
        "warm_up": 20.0,  # epochs
    }
    cifar100_240(config, config.networks)
    return smoke(config) if small else config
