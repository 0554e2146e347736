"""FitNet, hints from a frozen teacher's middle map, on CIFAR-100 (Romero et al., ICLR 2015).

  afd-train --config=cifar100_fitnet:resnet32,resnet110 --workdir=runs/fitnet \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers: networks, each trained first by the same
recipe in WORKDIR/teacher_0, ..., or folders of finished runs (`:resnet32,runs/teacher`).
Hints and labels are learned together, by one optimizer, as in RepDistiller's code.

What to expect (top-1, RepDistiller's public table, last epoch):

  student, teacher             alone  teacher  FitNet
  resnet32,resnet110           71.14    74.31   71.06
  resnet20,resnet110           69.06    74.31   68.99
  resnet20,resnet56            69.06    72.34   69.21
  resnet8x4,resnet32x4         72.50    79.42   73.50
  wrn-16-2,wrn-40-2            73.26    75.61   73.58
  wrn-40-1,wrn-40-2            71.98    75.61   72.24
  vgg8,vgg13                   70.36    74.64   71.02
  mobilenet_v2,vgg13           64.60    74.64   64.14
  mobilenet_v2,cifar_resnet50  64.60    79.34   63.16
  vgg8,cifar_resnet50          70.36    79.34   70.69
  shufflenet_v1,resnet32x4     70.50    79.42   73.59
  shufflenet_v2,resnet32x4     71.82    79.42   73.54
  shufflenet_v1,wrn-40-2       70.50    75.61   73.73

MobileNetV2 and the ShuffleNets learn at a rate of 0.01: train their teachers by themselves, and
give the folders (`:mobilenet_v2,runs/vgg13`). A VGG's stage is the third in the public code:
`--config.method.stage=3` for two VGGs, `--config.method.teacher_stage=3` for a VGG as teacher only,
and both, `stage=3` and `teacher_stage=2`, for a VGG as student only.
"""

import ml_collections

from afd_jax.runs.presets import cifar100_240
from afd_jax.runs.settings import base_config, parse_student, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings, those of the public table (HobbitLong/RepDistiller)."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "resnet32", ("resnet110",))
    config.method = {
        "name": "fitnet",
        "stage": 2,  # of the student
        "teacher_stage": 0,  # the same
        "hint_weight": 100.0,
        "label_weight": 1.0,
        "distillation_weight": 0.0,  # 0.9, with a label_weight of 0.1, adds knowledge distillation
    }
    cifar100_240(config, config.networks)
    return smoke(config) if small else config
