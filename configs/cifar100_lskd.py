"""Knowledge distillation from standardised logits, on CIFAR-100 (LSKD; Sun et al., CVPR 2024).

  afd-train --config=cifar100_lskd:resnet32,resnet110 --workdir=runs/lskd \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers, as in cifar100_kd.

Any method with a divergence from logits takes `--config.method.standardize=True`. This config is KD
with the matching weight and T, 9 and 2. For seven pairs the authors' logs have other values
(`_PUBLISHED` below), which are looked up by name. Where a teacher is a folder, set both yourself,
for `mobilenet_v2,cifar_resnet50`:
`--config.method.temperature=3 --config.method.distillation_weight=1`.

What to expect (top-1, the authors' README, best epoch):

  student, teacher             alone  teacher     KD   LSKD
  resnet32,resnet110           71.14    74.31  73.08  74.17
  resnet20,resnet110           69.06    74.31  70.67  71.48
  resnet20,resnet56            69.06    72.34  70.66  71.43
  resnet8x4,resnet32x4         72.50    79.42  73.33  76.62
  wrn-16-2,wrn-40-2            73.26    75.61  74.92  76.11
  wrn-40-1,wrn-40-2            71.98    75.61  73.54  74.37
  vgg8,vgg13                   70.36    74.64  72.98  74.36
  mobilenet_v2,vgg13           64.60    74.64  67.37  68.61
  mobilenet_v2,cifar_resnet50  64.60    79.34  67.35  69.02

MobileNetV2 and the ShuffleNets learn at a rate of 0.01: train their teachers by themselves, and
give the folders (`:mobilenet_v2,runs/vgg13`).
"""

import ml_collections

from afd_jax.runs.presets import cifar100_240
from afd_jax.runs.settings import base_config, parse_student, smoke

_PUBLISHED = {  # T and weight, where they are not 2 and 9
    ("vgg8", "vgg13"): (3.0, 9.0),
    ("resnet20", "resnet110"): (4.0, 12.0),
    ("mobilenet_v2", "vgg13"): (3.0, 9.0),
    ("mobilenet_v2", "cifar_resnet50"): (3.0, 1.0),
    ("mobilenet_v2", "wrn-40-2"): (3.0, 9.0),
    ("wrn-16-2", "resnet32x4"): (3.0, 9.0),
    ("wrn-40-2", "resnet32x4"): (3.0, 9.0),
}


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings, those of the authors' code (sunshangquan/logit-standardization-KD)."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "resnet32", ("resnet110",))
    temperature, weight = _PUBLISHED.get((*config.networks, *config.teachers), (2.0, 9.0))
    config.method = {
        "name": "kd",
        "standardize": True,
        "temperature": temperature,
        "label_weight": 0.1,
        "distillation_weight": weight,
    }
    cifar100_240(config, config.networks)
    return smoke(config) if small else config
