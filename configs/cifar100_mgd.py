"""Masked generative distillation on CIFAR-100, from a frozen teacher (Yang et al., ECCV 2022).

  afd-train --config=cifar100_mgd:resnet32,resnet110 --workdir=runs/mgd \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers: networks, each trained first by the same
recipe in WORKDIR/teacher_0, ..., or folders of finished runs (`:resnet32,runs/teacher`).

Networks that teach each other: `--config.networks="('resnet32','resnet32')"`,
`--config.teachers="()"` and `--config.graph=all_pairs`.

What to expect: figures on CIFAR-100 are not known to us; the authors train on ImageNet.
"""

import ml_collections

from afd_jax.runs.presets import cifar100_240
from afd_jax.runs.settings import base_config, parse_student, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings; the method's are those of the authors' code (yzd-v/MGD) for ImageNet."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "resnet32", ("resnet110",))
    config.method = {
        "name": "mgd",
        "hint_weight": 7e-5,  # of a sum over the map
        "masked": 0.15,
        "stage": -1,
        "teacher_stage": 0,  # the same
        "label_weight": 1.0,
        "distillation_weight": 0.0,
    }
    cifar100_240(config, config.networks)  # assumed
    return smoke(config) if small else config
