"""Contrastive representation distillation on CIFAR-100 (Tian, Krishnan, Isola; ICLR 2020).

  afd-train --config=cifar100_crd:resnet32,resnet110 --workdir=runs/crd \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers: networks, each trained first by the same
recipe in WORKDIR/teacher_0, ..., or folders of finished runs (`:resnet32,runs/teacher`).

What to expect (top-1, RepDistiller's public table, last epoch):

  student, teacher      alone  teacher    CRD
  resnet32,resnet110    71.14    74.31  73.48
  resnet20,resnet110    69.06    74.31  71.46
  resnet20,resnet56     69.06    72.34  71.16
  resnet8x4,resnet32x4  72.50    79.42  75.51
  wrn-16-2,wrn-40-2     73.26    75.61  75.48
  wrn-40-1,wrn-40-2     71.98    75.61  74.14
  vgg8,vgg13            70.36    74.64  73.94
"""

import ml_collections

from afd_jax.runs.presets import cifar100_240
from afd_jax.runs.settings import base_config, parse_student, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings, those of the public table (HobbitLong/RepDistiller)."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "resnet32", ("resnet110",))
    config.method = {
        "name": "crd",
        "hint_weight": 0.8,
        "negatives": 16384,
        "contrast_temperature": 0.07,
        "momentum": 0.5,
        "size": 128,
        "label_weight": 1.0,
        "distillation_weight": 0.0,
    }
    cifar100_240(config, config.networks)
    return smoke(config) if small else config
