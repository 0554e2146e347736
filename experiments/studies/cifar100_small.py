"""CIFAR-100 at 16x16: how much do AFD's two losses help on a small budget?

All 50,000 images. Fixed before any run: 20 epochs, batch size 128, SGD 0.1 with momentum 0.9,
weight decay 5e-4 and a cosine; feature and discriminator optimizers as in `few_labels`. All of
this is assumed. The two unknown settings of AFD that matter most in `few_labels_unknowns` are here,
too.

  python -m experiments.study cifar100_small --hours 5 --data-dir DIR
"""

import ml_collections

from experiments.studies.few_labels import adam
from experiments.study.plan import Block, Claim, Setting, Study


def recipe(config: ml_collections.ConfigDict, seed: int) -> None:
    """The recipe that all settings share."""
    config.data.name, config.data.image_size, config.data.heldout = "cifar100", 16, 0.0
    config.data.pad, config.data.pad_mode, config.data.flip = 2, "reflect", True
    config.batch_size = 128
    config.eval_batch_size = 500
    config.duration = "20 epochs"
    config.log_every = "100 steps"
    config.eval_every = "4 epochs"
    config.checkpoint_every = "1 epochs"
    logit = config.optimizers.logit
    logit.learning_rate, logit.momentum, logit.weight_decay = 0.1, 0.9, 5e-4
    logit.schedule = {"name": "cosine"}
    adam(config)


def _settings(names: str) -> tuple[Setting, ...]:
    afd = f"cifar100_afd:{names}"
    return (
        Setting("independent", f"cifar100_independent:{names}"),
        Setting("logits only", afd, {"method.adversarial_weight": 0.0}),
        Setting("L1+KD", f"cifar100_alignment:{names}"),
        Setting("AFD", afd),
        Setting("adversarial only", afd, {"method.distillation_weight": 0.0}),
        Setting("L1", f"cifar100_alignment:{names}", {"method.distillation_weight": 0.0}),
    )


_SEEDS = tuple(range(5))
_EQUAL, _UNLIKE = "two ResNet-8", "ResNet-8 and ResNet-14"
_PAIR = "resnet8,resnet8"
_UNKNOWN = (
    Setting("AFD at temperature 1", f"cifar100_afd:{_PAIR}", {"method.temperature": 1.0}),
    Setting("AFD with a second forward pass", f"cifar100_afd:{_PAIR}", {"second_forward": True}),
)

STUDY = Study(
    question="What do logits and maps bring on CIFAR-100, shrunk to 16x16, in 20 epochs?",
    blocks=(
        Block(_EQUAL, _settings(_PAIR) + _UNKNOWN, recipe, seeds=_SEEDS),
        Block(_UNLIKE, _settings("resnet8,resnet14")[:4], recipe, seeds=_SEEDS),
    ),
    claims=tuple(
        Claim(words, block, setting, against)
        for words, setting, against, *blocks in (
            ("learning together with AFD helps", "AFD", "independent", _EQUAL, _UNLIKE),
            ("the logits help alone", "logits only", "independent", _EQUAL, _UNLIKE),
            ("the discriminators help alone", "adversarial only", "independent", _EQUAL),
            ("the discriminators add to the logits", "AFD", "logits only", _EQUAL, _UNLIKE),
            ("aligning maps by L1 harms", "L1", "independent", _EQUAL),
            ("L1 and logits together harm", "L1+KD", "independent", _EQUAL, _UNLIKE),
            ("L1 harms beside the logits", "L1+KD", "logits only", _EQUAL, _UNLIKE),
            ("discriminators do better than L1", "AFD", "L1+KD", _EQUAL, _UNLIKE),
            ("temperature 1 is better than 3", "AFD at temperature 1", "AFD", _EQUAL),
            ("a second forward pass helps", "AFD with a second forward pass", "AFD", _EQUAL),
        )
        for block in blocks
    ),
)
