"""TF-KD, from a virtual teacher or a copy of oneself, on CIFAR-100 (Yuan et al., CVPR 2020).

  afd-train --config=cifar100_tf_kd:preact_resnet18 --workdir=runs/tf_kd \
      --config.data.data_dir=DIR

With a second name, `:cifar_resnet18,cifar_resnet18` or the folder of a finished run, that is the
teacher. With a teacher, the weights of the losses are the authors' for a post-activation ResNet-18
(`cifar_resnet18`) that learns from itself, and for 100 classes: their divergence is a mean over
classes, too, times 50.

What to expect (top-1): the authors have 75.87 % for `cifar_resnet18` alone. As measured for PS-KD,
by its recipe (error, PreAct ResNet-18): labels alone 24.18 %, TF-KD 22.88 %.
"""

import ml_collections

from afd_jax.runs.presets import CIFAR100, cifar100, zero_padded
from afd_jax.runs.settings import base_config, parse_student, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings; those of the authors' code (yuanli2333/Teacher-free-Knowledge-Distillation)."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "preact_resnet18", ())
    config.method = {
        "name": "tf_kd",
        "temperature": 6.0 if config.teachers else 20.0,
        "label_weight": 0.05 if config.teachers else 0.9,
        "distillation_weight": 0.475 if config.teachers else 0.1,
        "correct": 0.99,
    }
    cifar100(config)
    zero_padded(config, CIFAR100)
    config.data.rotate = 15.0
    config.duration = "200 epochs"
    config.optimizers.logit.weight_decay = 5e-4
    config.optimizers.logit.schedule = {
        "name": "step",
        "at": (60 / 200, 120 / 200, 160 / 200),
        "factor": 0.2,
        "warmup": 1 / 200,
    }
    return smoke(config) if small else config
