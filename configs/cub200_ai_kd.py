"""AI-KD on birds of 200 kinds, CUB-200-2011 (Kim et al., 2024).

  afd-train --config=cub200_ai_kd:imagenet_resnet18 --workdir=runs/birds \
      --config.data.data_dir=DIR --config.data.download=True

TFDS fetches the set as `caltech_birds2011`; `--config.data.name=tfds:stanford_dogs` takes the dogs.
Images are streamed: `pip install 'afd-jax[streaming]'`. The copy is trained first, in
WORKDIR/teacher_0.

What to expect: the paper's figures are not known to us.
"""

import ml_collections

from afd_jax.runs.presets import imagenet
from afd_jax.runs.settings import base_config, parse_student, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what we could not confirm in the paper or elsewhere."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "imagenet_resnet18", None)
    config.method = {  # all assumed
        "name": "ai_kd",
        "temperature": 1.0,
        "distillation_weight": 1.0,
        "progressive_weight": 1.0,
        "adversarial_weight": 0.1,
        "critic": {
            "network": "dense",
            "loss": "least_squares",
            "widths": (64, 64),
            "slope": 0.2,
        },
    }
    imagenet(config)  # assumed
    config.data.name = "tfds:caltech_birds2011"
    config.batch_size = 32  # assumed
    config.duration = "200 epochs"  # assumed
    config.optimizers.logit.schedule.at = (0.5, 0.75)  # assumed
    config.optimizers.discriminator.name = "adam"  # assumed
    config.optimizers.discriminator.learning_rate = 1e-4  # assumed
    return smoke(config) if small else config
