"""Factor transfer from a frozen teacher, on CIFAR-100 (Kim, Park, Kwak; NeurIPS 2018).

  python -m afd_jax --config=configs/cifar100_ft.py:resnet32,resnet110 --workdir=runs/ft \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers: networks, each trained first by the same
recipe in WORKDIR/teacher_0, ..., or folders of finished runs (`:resnet32,runs/teacher`).
Then the teacher's paraphraser is trained, in WORKDIR/prepared_0.

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
        "name": "ft",
        "hint_weight": 500.0,
        "rate": 0.5,
        "paraphraser_share": 0.04,
        "label_weight": 1.0,
        "distillation_weight": 0.0,
    }
    cifar100(config)  # assumed
    return smoke(config) if small else config
