"""The search for the recipe of `few_labels`: done first, for networks that learn alone.

Candidates are evaluated on pool images that are not used for training, never on test images.
"""

import ml_collections

from experiments.studies import digits
from experiments.study.plan import Block, Setting, Study


def recipe(config: ml_collections.ConfigDict, seed: int) -> None:
    """The settings that all candidates share."""
    digits.few_labels(config, seed, labels=300, choose=True)
    base(config)


def base(config: ml_collections.ConfigDict) -> None:
    """SGD with a cosine, a small batch and small shifts; all assumed.

    Learning rate, decay and length are the best of the candidates below, by the mean accuracy of
    both networks.
    """
    config.data.pad, config.data.pad_mode, config.data.flip = 1, "zero", False
    config.data.rotate = 0.0
    config.batch_size = 64
    config.eval_batch_size = 400
    config.duration = "600 steps"
    config.log_every = config.eval_every = config.checkpoint_every = "150 steps"
    logit = config.optimizers.logit
    logit.learning_rate, logit.momentum, logit.weight_decay = 0.1, 0.9, 2e-3
    logit.nesterov = False
    logit.schedule = {"name": "cosine"}


def _candidate(rate: float, decay: float, steps: int) -> Setting:
    changes = {
        "optimizers.logit.learning_rate": rate,
        "optimizers.logit.weight_decay": decay,
        "duration": f"{steps} steps",
    }
    name = f"{steps} steps, rate {rate:g}, decay {decay:g}"
    return Setting(name, "cifar100_independent:resnet8,resnet14", changes)


_CANDIDATES = (
    *(_candidate(rate, decay, 600) for rate in (0.02, 0.05, 0.1) for decay in (5e-4, 2e-3)),
    *(_candidate(0.05, decay, steps) for steps in (300, 1200) for decay in (5e-4, 2e-3)),
)

STUDY = Study(
    question="Which recipe suits two networks that learn alone from 300 labelled digits?",
    blocks=(
        Block(
            "300 labels, validation images",
            _CANDIDATES,
            recipe,
            seeds=tuple(range(100, 104)),
            baseline=_candidate(0.05, 5e-4, 600).name,
        ),
    ),
)
