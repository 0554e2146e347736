"""The AFD paper's claims beyond its main table, as far as digits with few labels can test them.

Equal networks, different ones, a small one with a large one, and three. The recipe is that of
`few_labels`, whose block with 300 labels is part of the answer.
"""

import functools

from experiments.studies.few_labels import recipe
from experiments.study.plan import Block, Claim, Setting, Study


def _four(names: str) -> tuple[Setting, ...]:
    return (
        Setting("independent", f"cifar100_independent:{names}"),
        Setting("logits only", f"cifar100_afd:{names}", {"method.adversarial_weight": 0.0}),
        Setting("L1+KD", f"cifar100_alignment:{names}"),
        Setting("AFD", f"cifar100_afd:{names}"),
    )


_THREE = "resnet8,resnet8,resnet8"
_BLOCKS = {
    "two ResNet-8": _four("resnet8,resnet8"),
    "three ResNet-8": (
        Setting("independent", f"cifar100_independent:{_THREE}"),
        Setting("AFD, cycle", f"cifar100_afd:{_THREE}"),
        Setting("AFD, all pairs", f"cifar100_afd:{_THREE}", {"graph": "all_pairs"}),
    ),
    "ResNet-8 beside WRN-16-1": _four("resnet8,wrn-16-1"),
    "ResNet-8 beside ResNet-14x2": _four("resnet8,resnet14x2"),
}

_PAIRS = [name for name in _BLOCKS if name != "three ResNet-8"]

STUDY = Study(
    question="Do the AFD paper's other claims hold for digits with 300 labels?",
    blocks=tuple(
        Block(name, settings, functools.partial(recipe, labels=300))
        for name, settings in _BLOCKS.items()
    ),
    claims=(
        *(Claim("learning together with AFD helps", b, "AFD", "independent") for b in _PAIRS),
        *(Claim("L1 and logits together harm", b, "L1+KD", "independent") for b in _PAIRS),
        *(Claim("L1 harms beside the logits", b, "L1+KD", "logits only") for b in _PAIRS),
        *(Claim("discriminators do better than L1", b, "AFD", "L1+KD") for b in _PAIRS),
        Claim("AFD in a cycle helps", "three ResNet-8", "AFD, cycle", "independent"),
        Claim("a cycle is better than all pairs", "three ResNet-8", "AFD, cycle", "AFD, all pairs"),
    ),
)
