"""Quick start: two small networks teach each other to read digits, from ten examples of each.

  afd-train --config=digits_afd --workdir=runs/digits

No network connection needed. Of the 1,797 real 8x8 images that scikit-learn ships, 100 are learned
from, 288 are held out and 360 are for the test. Ten seeds train in one program; twins of both
networks learn alone on the same batches, and the gain from learning together is reported seed by
seed.
"""

import ml_collections

from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """Settings; every one of them is a choice of ours, since no paper trains on digits."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("resnet8", "resnet14"))
    config.twins = True
    config.seeds = 10
    config.method = {
        "name": "afd",
        "temperature": 3.0,
        "distillation_weight": 1.0,
        "adversarial_weight": 1.0,
        "critic": {
            "network": "convolutional",
            "loss": "least_squares",
            "widths": (64, 128),
            "kernel": 3,
            "stride": 2,
            "slope": 0.2,
        },
    }
    config.second_forward = False

    config.optimizers.logit.learning_rate = 0.1
    config.optimizers.logit.weight_decay = 2e-3
    config.optimizers.feature.learning_rate = 1e-4
    config.optimizers.discriminator.learning_rate = 1e-4
    for optimizer in config.optimizers.values():
        optimizer.schedule = {"name": "cosine"}

    config.data.name = "digits"
    config.data.heldout = 0.2
    config.data.labels = 100
    config.data.pad = 1
    config.data.pad_mode = "zero"
    config.batch_size = 32
    config.eval_batch_size = 360
    config.duration = "150 steps"
    config.eval_every = "15 steps"
    config.checkpoint_every = "75 steps"
    return smoke(config) if small else config
