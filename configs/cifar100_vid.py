"""Variational information distillation from a frozen teacher, on CIFAR-100 (Ahn et al.; CVPR 2019).

  afd-train --config=cifar100_vid:resnet32,resnet110 --workdir=runs/vid \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers: networks, each trained first by the same
recipe in WORKDIR/teacher_0, ..., or folders of finished runs (`:resnet32,runs/teacher`).
A VGG's first stage is left out in the public code: `'--config.method.stages=(2,3,4,5)'` for two
VGGs.

What to expect (top-1, RepDistiller's public table, last epoch):

  student, teacher      alone  teacher    VID
  resnet32,resnet110    71.14    74.31  72.61
  resnet20,resnet110    69.06    74.31  70.16
  resnet20,resnet56     69.06    72.34  70.38
  resnet8x4,resnet32x4  72.50    79.42  73.09
  wrn-16-2,wrn-40-2     73.26    75.61  74.11
  wrn-40-1,wrn-40-2     71.98    75.61  73.30
  vgg8,vgg13            70.36    74.64  71.23
"""

import ml_collections

from afd_jax.runs.presets import cifar100_240
from afd_jax.runs.settings import base_config, parse_student, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings, those of the public table (HobbitLong/RepDistiller)."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "resnet32", ("resnet110",))
    config.method = {
        "name": "vid",
        "hint_weight": 1.0,
        "stages": (),  # all
        "label_weight": 1.0,
        "distillation_weight": 0.0,
    }
    cifar100_240(config, config.networks)
    return smoke(config) if small else config
