"""Factor transfer from a frozen teacher, on CIFAR-100 (Kim, Park, Kwak; NeurIPS 2018).

  afd-train --config=cifar100_ft:resnet20,resnet56 --workdir=runs/ft \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers: networks, each trained first by the same
recipe in WORKDIR/teacher_0, ..., or folders of finished runs (`:resnet20,runs/teacher`).
Then the teacher's paraphraser is trained.

The pair and the recipe are those of the authors' code, which is for CIFAR-10
(`--config.data.name=cifar10`).

What to expect: we know of no figures for this recipe. The 69.84 % of RepDistiller's table
for this pair are of another form of FT and another recipe.
"""

import ml_collections

from afd_jax.runs.presets import CIFAR10, cifar100, zero_padded
from afd_jax.runs.settings import base_config, parse_student, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings; those of the authors' code (Jangho-Kim/Factor-Transfer-pytorch)."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "resnet20", ("resnet56",))
    config.method = {
        "name": "ft",
        "hint_weight": 500.0,
        "rate": 0.5,
        "paraphraser_epochs": 6.0,
        "paraphraser_learning_rate": 0.1,  # constant
        "label_weight": 1.0,
        "distillation_weight": 0.0,
    }
    cifar100(config)
    zero_padded(config, CIFAR10)
    config.duration = "164 epochs"
    config.optimizers.logit.weight_decay = 5e-4
    at = (82 / 164, 123 / 164)
    config.optimizers.logit.schedule = {"name": "step", "at": at, "factor": 0.1}
    return smoke(config) if small else config
