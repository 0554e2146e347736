"""AFD on a folder of your own photographs, one subfolder for each class.

  afd-train --config=folder_afd:resnet20,resnet20 \
      --workdir=runs/photographs --config.data.data_dir=DIR

DIR holds train/CLASS/*.jpg and test/CLASS/*.jpg, or only CLASS/*.jpg, of which a fifth is kept for
the test. Images are resized to a shorter side of 64 pixels, cut to the middle and kept in memory;
`--config.data.image_size=32` is four times quicker. `--config.twins=True` also trains each network
by itself on the same batches. For folders too large for memory add the word "stream": images of 224
pixels are cut at random as they are read (`pip install 'afd-jax[streaming]'`):

  afd-train --config=folder_afd:stream,imagenet_resnet18,imagenet_resnet18 \
      --workdir=runs/photographs --config.data.data_dir=DIR

What to expect: nobody has published numbers for your photographs. Training from scratch needs
about a thousand images of each class.
"""

import ml_collections

from afd_jax.runs.presets import imagenet
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings, all of them assumed."""
    config = base_config()
    words, small = parse_arguments(argument, ())
    named = tuple(word for word in words if word != "stream")
    config.networks = named or ("resnet20", "resnet20")
    config.graph = "cyclic"
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
    if "stream" in words:
        imagenet(config)  # for the size, and for means and deviations of photographs
    else:
        config.data.image_size = 64
        config.data.pad = 4
        config.data.flip = True
    config.data.name = "folder"
    config.batch_size = 64
    config.eval_batch_size = 128
    config.duration = "100 epochs"
    config.log_every = "10 steps"
    config.eval_every = "5 epochs"
    config.checkpoint_every = "5 epochs"

    config.optimizers.logit.learning_rate = 0.05
    config.optimizers.logit.weight_decay = 5e-4
    config.optimizers.feature.learning_rate = 1e-4
    config.optimizers.discriminator.learning_rate = 1e-4
    for optimizer in config.optimizers.values():
        optimizer.schedule = {"name": "cosine"}
    return smoke(config) if small else config
