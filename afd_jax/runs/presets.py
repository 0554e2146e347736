"""Parts that several config files share, so that methods are compared under one recipe."""

import ml_collections


def cifar100(config: ml_collections.ConfigDict) -> None:
    """Data, logit optimizer and length of AFD's CIFAR-100 runs (Chung et al., ICML 2020).

    All assumed but the augmentation, which is the same lab's published recipe for a later method.
    """
    config.data.name = "cifar100"
    config.data.heldout = 0.0  # the papers train on all 50,000 images
    config.data.mean = (129.3 / 255, 124.1 / 255, 112.4 / 255)
    config.data.std = (68.2 / 255, 65.4 / 255, 70.4 / 255)
    config.data.pad = 4
    config.data.pad_mode = "reflect"
    config.data.flip = True
    config.batch_size = 128
    config.duration = "300 epochs"
    config.log_every = "100 steps"

    logit = config.optimizers.logit
    logit.name = "sgd"
    logit.learning_rate = 0.1
    logit.momentum = 0.9
    logit.nesterov = False
    logit.weight_decay = 1e-4
    logit.schedule = {"name": "step", "at": (0.5, 0.75), "factor": 0.1}  # epochs 150, 225 of 300


def slow_adam(optimizer: ml_collections.ConfigDict) -> None:
    """AFD's optimizer of feature losses and discriminators; all assumed."""
    optimizer.name = "adam"
    optimizer.learning_rate = 2e-5
    optimizer.weight_decay = 1e-1
    optimizer.decay = "gradient"  # "decoupled" would be AdamW
    optimizer.schedule = {"name": "step", "at": (0.25, 0.5), "factor": 0.1}  # epochs 75, 150


def imagenet(config: ml_collections.ConfigDict) -> None:
    """Data, logit optimizer and length of AFD's ImageNet runs (Chung et al., ICML 2020).

    All assumed: the usual 90 epochs, test images cut to the middle 224 of 256 pixels.
    """
    config.data.name = "tfds:imagenet2012"
    config.data.stream = True
    config.data.image_size = 224
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.batch_size = 256
    config.eval_batch_size = 256
    config.duration = "90 epochs"
    config.log_every = "100 steps"

    logit = config.optimizers.logit
    logit.name = "sgd"
    logit.learning_rate = 0.1
    logit.momentum = 0.9
    logit.nesterov = False
    logit.weight_decay = 1e-4
    logit.schedule = {"name": "step", "at": (1 / 3, 2 / 3), "factor": 0.1}  # epochs 30, 60 of 90
