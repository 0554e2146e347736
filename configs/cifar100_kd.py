"""Knowledge distillation from a frozen teacher, on CIFAR-100 (Hinton et al., 2015).

  afd-train --config=cifar100_kd:resnet32,resnet110 --workdir=runs/kd \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers: networks, each trained first by the same
recipe in WORKDIR/teacher_0, ..., or folders of finished runs (`:resnet32,runs/teacher`).

What to expect (top-1, RepDistiller's public table, last epoch):

  student, teacher             alone  teacher     KD
  resnet32,resnet110           71.14    74.31  73.08
  resnet20,resnet110           69.06    74.31  70.67
  resnet20,resnet56            69.06    72.34  70.66
  resnet8x4,resnet32x4         72.50    79.42  73.33
  wrn-16-2,wrn-40-2            73.26    75.61  74.92
  wrn-40-1,wrn-40-2            71.98    75.61  73.54
  vgg8,vgg13                   70.36    74.64  72.98
  mobilenet_v2,vgg13           64.60    74.64  67.37
  mobilenet_v2,cifar_resnet50  64.60    79.34  67.35
  vgg8,cifar_resnet50          70.36    79.34  73.81
  shufflenet_v1,resnet32x4     70.50    79.42  74.07
  shufflenet_v2,resnet32x4     71.82    79.42  74.45
  shufflenet_v1,wrn-40-2       70.50    75.61  74.83

MobileNetV2 and the ShuffleNets learn at a rate of 0.01: train their teachers by themselves, and
give the folders (`:mobilenet_v2,runs/vgg13`).
"""

import ml_collections

from afd_jax.runs.presets import cifar100_240
from afd_jax.runs.settings import base_config, parse_student, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings, those of the public table (HobbitLong/RepDistiller)."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "resnet32", ("resnet110",))
    config.method = {
        "name": "kd",
        "temperature": 4.0,
        "label_weight": 0.1,
        "distillation_weight": 0.9,
    }
    cifar100_240(config, config.networks)
    return smoke(config) if small else config
