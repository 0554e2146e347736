"""Switchable online knowledge distillation on CIFAR-100 (SwitOKD; Qian et al., ECCV 2022).

  afd-train --config=cifar100_switokd:resnet32,resnet110 --workdir=runs/switokd \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers, which train with it and pause where they
run too far ahead.

In the authors' code each network has a rate of its own, 0.1 for a wide ResNet and 0.01 for a
MobileNetV2 beside it; here one rate serves all.

What to expect: the paper's figures are not known to us.
"""

import ml_collections

from afd_jax.engine.build import numbered
from afd_jax.runs.presets import cifar100, zero_padded
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings; those of the authors' code (hfutqian/SwitOKD) unless "assumed" stands there."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("resnet32", "resnet110"))  # assumed
    config.graph = "all_pairs"
    config.method = {
        "name": "switokd",
        "temperature": 1.0,
        "distillation_weight": 1.0,
        "pausing": tuple(numbered(config.networks)[1:]),
    }
    cifar100(config)
    zero_padded(config, ((0.507, 0.487, 0.441), (0.267, 0.256, 0.276)))
    logit = config.optimizers.logit
    logit.weight_decay = 5e-4
    # The authors' code lowers the rate when the 140th, 200th and 250th of its 299 epochs begin.
    config.duration = "299 epochs"
    logit.schedule = {"name": "step", "at": (139 / 299, 199 / 299, 249 / 299), "factor": 0.1}
    return smoke(config) if small else config
