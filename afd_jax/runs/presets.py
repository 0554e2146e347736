"""Parts that several config files share, so that methods are compared under one recipe."""

from collections.abc import Sequence

import ml_collections

# Means and deviations of the channels as public codes write them; several take CIFAR-10's for
# CIFAR-100, too.
CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
CIFAR100 = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


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

    _sgd(config, (0.5, 0.75))  # epochs 150, 225 of 300


def _sgd(config: ml_collections.ConfigDict, at: Sequence[float]) -> None:
    """AFD's optimizer of logit losses; assumed."""
    logit = config.optimizers.logit
    logit.name = "sgd"
    logit.learning_rate = 0.1
    logit.momentum = 0.9
    logit.nesterov = False
    logit.weight_decay = 1e-4
    logit.schedule = {"name": "step", "at": at, "factor": 0.1}


def zero_padded(
    config: ml_collections.ConfigDict, channels: tuple[tuple[float, ...], tuple[float, ...]]
) -> None:
    """Crops with black borders and the channels' (means, deviations), as in most public codes."""
    config.data.pad_mode = "zero"
    config.data.mean, config.data.std = channels


def cifar100_240(config: ml_collections.ConfigDict, networks: Sequence[str]) -> None:
    """The recipe of the public table of offline methods (RepDistiller's and mdistiller's code).

    Its rate is 0.01 for MobileNetV2 and the ShuffleNets, 0.05 for all others. A teacher that is
    trained on the way gets its student's rate; for such pairs train it by itself.
    """
    cifar100(config)
    zero_padded(config, ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)))
    config.batch_size = 64
    config.duration = "240 epochs"

    light = any(name.startswith(("mobilenet", "shufflenet")) for name in networks)
    logit = config.optimizers.logit
    logit.learning_rate = 0.01 if light else 0.05
    logit.weight_decay = 5e-4
    at = (150 / 240, 180 / 240, 210 / 240)
    logit.schedule = {"name": "step", "at": at, "factor": 0.1}


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

    _sgd(config, (1 / 3, 2 / 3))  # epochs 30, 60 of 90
