"""Deep mutual learning on ImageNet, as AFD's authors compare with it (Chung et al., ICML 2020).

  afd-train --config=imagenet_dml:imagenet_resnet18,imagenet_resnet18 \
      --workdir=runs/imagenet_dml --config.data.data_dir=DIR

Data as for `imagenet_afd.py`.

What to expect (AFD's paper, top-1): ResNet-18 pair 70.19 %, ResNet-34 pair 73.57 %.
"""

import ml_collections

from afd_jax.runs.presets import imagenet
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings. "Assumed" marks what we could not confirm in the paper or elsewhere."""
    config = base_config()
    default = ("imagenet_resnet18", "imagenet_resnet18")
    config.networks, small = parse_arguments(argument, default)
    config.method = {
        "name": "dml",
        "temperature": 3.0,  # assumed: the form that AFD is compared with; 1 as published
        "distillation_weight": 1.0,
    }
    imagenet(config)  # assumed
    return smoke(config) if small else config
