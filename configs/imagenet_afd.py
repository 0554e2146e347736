"""AFD on ImageNet with the paper's networks (Chung et al., ICML 2020).

  afd-train --config=imagenet_afd:imagenet_resnet18,imagenet_resnet18 \
      --workdir=runs/imagenet --config.data.data_dir=DIR

DIR holds `imagenet2012` as TFDS prepares it (`tfds build imagenet2012 --file_format=array_record`,
from the archives that one must fetch from image-net.org oneself). Streaming needs Grain:
`pip install 'afd-jax[streaming]'`. On a pod, `--config.precision=bfloat16` and a larger batch.

What to expect (paper, top-1): ResNet-18 pair DML 70.19 %, AFD 70.39 %; ResNet-34 pair 73.57 % and
74.00 %.
"""

import ml_collections

from afd_jax.runs.presets import imagenet, slow_adam
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what we could not confirm in the paper or elsewhere."""
    config = base_config()
    default = ("imagenet_resnet18", "imagenet_resnet18")
    config.networks, small = parse_arguments(argument, default)
    config.graph = "cyclic"
    config.method = {
        "name": "afd",
        "temperature": 3.0,  # assumed
        "distillation_weight": 1.0,
        "adversarial_weight": 1.0,
        "critic": {
            "network": "convolutional",
            "loss": "least_squares",
            # Conv-BatchNorm-LeakyReLU blocks; their number and sizes are assumed, as on CIFAR-100.
            "widths": (64, 128),
            "kernel": 3,
            "stride": 2,
            "slope": 0.2,
        },
    }
    imagenet(config)  # assumed
    slow_adam(config.optimizers.feature)  # assumed
    slow_adam(config.optimizers.discriminator)  # assumed
    return smoke(config) if small else config
