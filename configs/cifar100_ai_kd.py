"""AI-KD, from a finished copy of oneself and from the last epoch, on CIFAR-100 (Kim et al., 2024).

  afd-train --config=cifar100_ai_kd:preact_resnet18 --workdir=runs/ai_kd \
      --config.data.data_dir=DIR

The copy is trained first, in WORKDIR/teacher_0; a second name may be the folder of a finished run.

What to expect: the paper's figures are not known to us.
"""

import ml_collections

from afd_jax.runs.presets import cifar100
from afd_jax.runs.settings import base_config, parse_student, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what we could not confirm in the paper or elsewhere."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "preact_resnet18", None)
    config.method = {  # all assumed
        "name": "ai_kd",
        "temperature": 1.0,
        "distillation_weight": 1.0,
        "progressive_weight": 1.0,
        "adversarial_weight": 0.1,
        "critic": {
            "network": "dense",
            "loss": "least_squares",  # or "bce", "hinge", "wasserstein"
            "widths": (64, 64),
            "slope": 0.2,
        },
    }
    cifar100(config)  # assumed
    config.optimizers.discriminator.name = "adam"  # assumed
    config.optimizers.discriminator.learning_rate = 1e-4  # assumed
    return smoke(config) if small else config
