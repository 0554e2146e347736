"""Attention transfer from a frozen teacher, on CIFAR-100 (Zagoruyko, Komodakis; ICLR 2017).

  afd-train --config=cifar100_at:resnet32,resnet110 --workdir=runs/at \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers: networks, each trained first by the same
recipe in WORKDIR/teacher_0, ..., or folders of finished runs (`:resnet32,runs/teacher`).
The public code skips a VGG's first stage: for two VGGs, `'--config.method.stages=(2,3,4,5)'`. If
only one network is a VGG, set both, as for `mobilenet_v2,vgg13`:
`'--config.method.stages=(1,2,3,4)' '--config.method.teacher_stages=(2,3,4,5)'`.

What to expect (top-1, RepDistiller's public table, last epoch):

  student, teacher             alone  teacher     AT
  resnet32,resnet110           71.14    74.31  72.31
  resnet20,resnet110           69.06    74.31  70.22
  resnet20,resnet56            69.06    72.34  70.55
  resnet8x4,resnet32x4         72.50    79.42  73.44
  wrn-16-2,wrn-40-2            73.26    75.61  74.08
  wrn-40-1,wrn-40-2            71.98    75.61  72.77
  vgg8,vgg13                   70.36    74.64  71.43
  mobilenet_v2,vgg13           64.60    74.64  59.40
  mobilenet_v2,cifar_resnet50  64.60    79.34  58.58
  vgg8,cifar_resnet50          70.36    79.34  71.84
  shufflenet_v1,resnet32x4     70.50    79.42  71.73
  shufflenet_v2,resnet32x4     71.82    79.42  72.73
  shufflenet_v1,wrn-40-2       70.50    75.61  73.32

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
        "name": "at",
        "hint_weight": 1000.0,
        "stages": (),  # all
        "label_weight": 1.0,
        "distillation_weight": 0.0,
    }
    cifar100_240(config, config.networks)
    return smoke(config) if small else config
