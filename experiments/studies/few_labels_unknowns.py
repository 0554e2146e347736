"""Which of AFD's unknown settings matter: each is changed on its own, on digits with 300 labels.

The recipe is that of `few_labels`, with a feature rate of 1e-4 and no decay; `cifar100_afd` has
2e-5 and a decay of 0.1. A setting matters if it changes the result more than the adversarial loss
does; that is the line "logits only" with the opposite sign.
"""

import functools

from experiments.studies.few_labels import recipe
from experiments.study.plan import Block, Setting, Study


def _changed(name: str, networks: str, **changes: object) -> Setting:
    dotted = {path.replace("__", "."): value for path, value in changes.items()}
    return Setting(name, f"cifar100_afd:{networks}", dotted)


def _both(field: str, value: object) -> dict[str, object]:
    """Changes for the optimizers of the features and of the discriminators."""
    return {f"optimizers__{update}__{field}": value for update in ("feature", "discriminator")}


_EQUAL, _UNLIKE = "resnet8,resnet14", "resnet8,resnet14x2"
_DECAY = _both("weight_decay", 0.1)

STUDY = Study(
    question="Which of AFD's unknown settings change its result?",
    blocks=(
        Block(
            "ResNet-8 and ResNet-14",
            (
                _changed("AFD", _EQUAL),
                _changed("logits only", _EQUAL, method__adversarial_weight=0.0),
                _changed("temperature 1", _EQUAL, method__temperature=1.0),
                _changed("temperature 2", _EQUAL, method__temperature=2.0),
                _changed("temperature 5", _EQUAL, method__temperature=5.0),
                _changed("feature rate 2e-5", _EQUAL, **_both("learning_rate", 2e-5)),
                _changed("feature rate 1e-3", _EQUAL, **_both("learning_rate", 1e-3)),
                _changed("decay 0.1 in the gradient", _EQUAL, **_DECAY),
                _changed("decay 0.1, decoupled", _EQUAL, **_DECAY, **_both("decay", "decoupled")),
                _changed(
                    "feature rate 2e-5, decay 0.1", _EQUAL, **_both("learning_rate", 2e-5), **_DECAY
                ),
                _changed("second forward pass", _EQUAL, second_forward=True),
                _changed("discriminator of 32", _EQUAL, method__critic__widths=(32,)),
                _changed(
                    "discriminator of 128, 256, 512", _EQUAL, method__critic__widths=(128, 256, 512)
                ),
            ),
            functools.partial(recipe, labels=300),
            baseline="AFD",
        ),
        Block(
            "ResNet-8 and ResNet-14x2, which need a transfer layer",
            (
                _changed("AFD", _UNLIKE),
                _changed("logits only", _UNLIKE, method__adversarial_weight=0.0),
                *(
                    _changed(
                        f"transfer layer: {words}",
                        _UNLIKE,
                        method__transfer=f"experiments.studies.heads:{name}",
                    )
                    for words, name in (("1x1 convolution", "Linear"), ("two of 3x3", "Wide"))
                ),
            ),
            functools.partial(recipe, labels=300),
            baseline="AFD",
        ),
    ),
)
