"""FitNet, hints from a frozen teacher's middle map, on CIFAR-100 (Romero et al., ICLR 2015).

  python -m afd_jax --config=configs/cifar100_fitnet.py:resnet32,resnet110 --workdir=runs/fitnet \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers: networks, each trained first by the same
recipe in WORKDIR/teacher_0, ..., or folders of finished runs (`:resnet32,runs/teacher`).

What to expect: figures under this recipe are not known to us.
"""

import ml_collections

from afd_jax.runs.settings import base_config, parse_student, smoke
from afd_jax.runs.presets import cifar100


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what no source of the paper confirms."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "resnet32", ("resnet110",))
    config.method = {
        "name": "fitnet",
        "stage": 2,  # assumed: the middle one of three
        "hint_weight": 100.0,  # assumed
        "label_weight": 1.0,
        "distillation_weight": 0.0,  # 0.9, with a label_weight of 0.1, adds knowledge distillation
    }
    cifar100(config)  # assumed
    return smoke(config) if small else config
