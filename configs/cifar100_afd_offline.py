"""AFD from a frozen teacher, the offline form, on CIFAR-100 (Chung et al., ICML 2020).

  afd-train --config=cifar100_afd_offline:resnet32,resnet32 \
      --workdir=runs/afd_offline --config.data.data_dir=DIR

The first name is the student, the others are its teachers: networks, each trained first by the same
recipe in WORKDIR/teacher_0, ..., or folders of finished runs (`:resnet32,runs/teacher`).
`--config.method.name=alignment` is direct alignment from the same teacher (L1+KD, offline).

What to expect: we know of no figures for this recipe.
"""

import ml_collections

from afd_jax.runs.presets import cifar100, slow_adam
from afd_jax.runs.settings import base_config, parse_student, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what we could not confirm in the paper or elsewhere."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "resnet32", ("resnet32",))
    config.method = {
        "name": "afd",
        "temperature": 3.0,  # assumed
        "distillation_weight": 1.0,
        "adversarial_weight": 1.0,
        "critic": {
            "network": "convolutional",
            "loss": "least_squares",
            # Conv-BatchNorm-LeakyReLU blocks; their number and sizes are assumed.
            "widths": (64, 128),
            "kernel": 3,
            "stride": 2,
            "slope": 0.2,
        },
    }
    # Assumed, as marked there: SGD for the logits, Adam for maps and discriminators, the schedule.
    cifar100(config)
    slow_adam(config.optimizers.feature)
    slow_adam(config.optimizers.discriminator)
    return smoke(config) if small else config
