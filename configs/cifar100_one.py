"""ONE on CIFAR-100: branches of one network and their gated ensemble (Lan et al., NeurIPS 2018).

  python -m afd_jax --config=configs/cifar100_one.py:resnet32 --workdir=runs/one \
      --config.data.data_dir=DIR

What to expect (top-1, of a branch): ResNet-110 78.38 % (alone 74.67 %; the paper); ResNet-32
73.79 % (as measured for PCL, AAAI 2021). The paper's networks of depth 44 and more have bottleneck
blocks, ours have basic ones at every depth.
"""

import ml_collections

from afd_jax.runs.settings import base_config, parse_arguments, smoke
from afd_jax.runs.presets import cifar100


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings; those of the method and the schedule are of the authors' code."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("resnet32",))
    config.method = {
        "name": "one",
        "branches": 3,
        "shared": 0,  # all stages but the last
        "temperature": 3.0,
        "distillation_weight": 1.0,
        "ramp_up": 80 / 300,  # of 300 epochs
    }
    cifar100(config)  # whose normalisation differs a little from theirs
    config.data.pad_mode = "zero"
    config.optimizers.logit.schedule = {"name": "step", "at": (151 / 300, 225 / 300), "factor": 0.1}
    return smoke(config) if small else config
