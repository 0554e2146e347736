"""A gated ensemble of frozen teachers, on CIFAR-100 (Zhu et al., CIKM 2020).

  afd-train --config=cifar100_ensemble_kd:resnet32,resnet110,resnet110 --workdir=runs/ensemble_kd \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers: networks, each trained first by the same
recipe in WORKDIR/teacher_0, ..., or folders of finished runs (`:resnet32,runs/a,runs/b`). Teachers
of one name differ by their seeds.

What to expect: the paper predicts clicks, so there are no figures for images.
"""

import ml_collections

from afd_jax.runs.presets import cifar100_240
from afd_jax.runs.settings import base_config, parse_student, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what we could not confirm in the paper or elsewhere."""
    config = base_config()
    teachers = ("resnet110",) * 3  # assumed
    config.networks, config.teachers, small = parse_student(argument, "resnet32", teachers)
    config.method = {
        "name": "ensemble_kd",
        "gate": "learned",  # what it sees and learns from is assumed
        "temperature": 4.0,  # assumed, as the weights: those of cifar100_kd
        "label_weight": 0.1,
        "distillation_weight": 0.9,
    }
    cifar100_240(config, config.networks)  # assumed
    return smoke(config) if small else config
