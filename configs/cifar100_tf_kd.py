"""TF-KD, from a virtual teacher or a copy of oneself, on CIFAR-100 (Yuan et al., CVPR 2020).

  python -m afd_jax --config=configs/cifar100_tf_kd.py:preact_resnet18 --workdir=runs/tf_kd \
      --config.data.data_dir=DIR

With a second name, `:preact_resnet18,preact_resnet18` or the folder of a finished run, that is the
teacher.

What to expect (top-1 error, PreAct ResNet-18, another recipe): labels alone 24.18 %, TF-KD
22.88 %.
"""

import ml_collections

from afd_jax.runs.settings import base_config, parse_student, smoke
from afd_jax.runs.presets import cifar100


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what no source of the paper confirms."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "preact_resnet18", ())
    config.method = {
        "name": "tf_kd",
        "temperature": 6.0 if config.teachers else 20.0,
        "label_weight": 0.05 if config.teachers else 0.9,
        "distillation_weight": 0.475 if config.teachers else 0.1,
        "correct": 0.99,
    }
    cifar100(config)  # assumed
    return smoke(config) if small else config
