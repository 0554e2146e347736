"""AFD on CIFAR-100 with the paper's schedule, for any networks (Chung et al., ICML 2020).

  afd-train --config=cifar100_afd:resnet32,resnet32 --workdir=runs/pair \
      --config.data.data_dir=DIR

Three and more names make the one-way cycle; names may differ. `:resnet8,resnet8,smoke` shrinks it
to a minute. `--config.twins=True` also trains each network by itself on the same batches.

What to expect (paper, mean of 5 runs, top-1): ResNet-32 alone 69.38 %, a pair with the logit loss
only 73.38 %, a pair with AFD 74.03 %.
"""

import ml_collections

from afd_jax.runs.presets import cifar100, slow_adam
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what we could not confirm in the paper or elsewhere."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("resnet32", "resnet32"))
    config.graph = "cyclic"
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
    config.second_forward = False  # one forward pass for both updates
    # Assumed, as marked there: SGD for the logits, Adam for maps and discriminators, the schedule.
    cifar100(config)
    slow_adam(config.optimizers.feature)
    slow_adam(config.optimizers.discriminator)
    return smoke(config) if small else config
