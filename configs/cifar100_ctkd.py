"""Knowledge distillation at a temperature learned against the student (CTKD; Li et al., AAAI 2023).

  afd-train --config=cifar100_ctkd:resnet32,resnet110 --workdir=runs/ctkd \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers, as in cifar100_kd.

What to expect (top-1, the authors' README):

  student, teacher    alone  teacher     KD   CTKD
  resnet20,resnet56   69.06    72.34  70.66  71.19
  resnet32,resnet110  71.14    74.31  73.08  73.52
  resnet20,resnet110  69.06    74.31  70.66  70.99
  wrn-16-2,wrn-40-2   73.26    75.61  74.92  75.45
  wrn-40-1,wrn-40-2   71.98    75.61  73.54  73.93
  vgg8,vgg13          70.36    74.64  72.98  73.52

MobileNetV2 and the ShuffleNets learn at a rate of 0.01: train their teachers by themselves, and
give the folders (`:mobilenet_v2,runs/vgg13`).
"""

import ml_collections

from afd_jax.runs.presets import cifar100_240
from afd_jax.runs.settings import base_config, parse_student, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings, those of the authors' code (zhengli97/CTKD)."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "resnet32", ("resnet110",))
    config.method = {
        "name": "ctkd",
        "least_temperature": 1.0,
        "temperature_range": 20.0,
        "label_weight": 0.1,
        "distillation_weight": 0.9,
        "adversarial_weight": 1.0,
        "rise": 10.0,  # epochs
    }
    cifar100_240(config, config.networks)
    return smoke(config) if small else config
