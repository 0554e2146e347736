"""Block-wise logit distillation from a frozen teacher, on CIFAR-100 (Yu et al., 2024).

  afd-train --config=cifar100_block_kd:resnet32,resnet110 --workdir=runs/block_kd \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers: networks, each trained first by the same
recipe in WORKDIR/teacher_0, ..., or folders of finished runs (`:resnet32,runs/teacher`).

Each step runs the teacher's upper stages once more for every stage of the student; memory and time
are in `--dry-run=timed`.

What to expect: no public code of the authors' form is known to us, so their figures do not compare.
"""

import ml_collections

from afd_jax.runs.presets import cifar100_240
from afd_jax.runs.settings import base_config, parse_student, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings; the weights and T are assumed."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "resnet32", ("resnet110",))
    config.method = {
        "name": "block_kd",
        "temperature": 4.0,
        "label_weight": 1.0,
        "distillation_weight": 1.0,
        "hint_weight": 1.0,  # of the last stage's; halved for each below it
        "stages": (),  # all
    }
    cifar100_240(config, config.networks)  # the authors' epochs and batches; the rest assumed
    return smoke(config) if small else config
