"""AFD's own tables on CIFAR-100 (Chung et al., ICML 2020): 300 epochs, five seeds. For GPUs.

  python -m experiments.study paper_afd --hours 24 --seeds-at-once 5 --data-dir DIR

All settings of a block share the paper's recipe as in the config `cifar100_afd`, including what we
assume there. The paper's figures are means of five runs. We do not know which different networks it
pairs, nor which teachers it uses. For two networks, "logits only" is the same as DML at T = 3;
"DML" is as published, at T = 1.
"""

import ml_collections

from afd_jax.runs.presets import cifar100, slow_adam
from experiments.study.plan import Block, Setting, Study


def recipe(config: ml_collections.ConfigDict, seed: int) -> None:
    """The paper's recipe, for every method."""
    cifar100(config)
    slow_adam(config.optimizers.feature)
    slow_adam(config.optimizers.discriminator)
    config.eval_every = "10 epochs"
    config.checkpoint_every = "5 epochs"


_SEEDS = tuple(range(5))
_PAIR, _UNLIKE, _THREE = "resnet32,resnet32", "resnet32,wrn-16-2", "resnet32,resnet32,resnet32"
_NO_MAPS = {"method.adversarial_weight": 0.0}
_NO_LOGITS = {"method.distillation_weight": 0.0}
_TEACHER = ("independent@resnet56",)

STUDY = Study(
    question="Do we find what the AFD paper found on CIFAR-100?",
    blocks=(
        Block(
            "two ResNet-32",
            (
                # These three first: they decide.
                Setting(
                    "independent", f"cifar100_independent:{_PAIR}", published={"resnet32": 69.38}
                ),
                Setting(
                    "logits only", f"cifar100_afd:{_PAIR}", _NO_MAPS, published={"resnet32": 73.38}
                ),
                Setting("AFD", f"cifar100_afd:{_PAIR}", published={"resnet32": 74.03}),
                Setting("adversarial only", f"cifar100_afd:{_PAIR}", _NO_LOGITS),
                Setting("L1", f"cifar100_alignment:{_PAIR}", _NO_LOGITS),
                Setting("L1+KD", f"cifar100_alignment:{_PAIR}"),
                Setting("DML", f"cifar100_dml:{_PAIR}"),
                Setting("ONE", "cifar100_one:resnet32"),
            ),
            recipe,
            _SEEDS,
        ),
        Block(
            "ResNet-32 and WRN-16-2",
            (
                Setting("independent", f"cifar100_independent:{_UNLIKE}"),
                Setting("logits only", f"cifar100_afd:{_UNLIKE}", _NO_MAPS),
                Setting("AFD", f"cifar100_afd:{_UNLIKE}"),
                Setting("L1+KD", f"cifar100_alignment:{_UNLIKE}"),
                Setting("DML", f"cifar100_dml:{_UNLIKE}"),
            ),
            recipe,
            _SEEDS,
        ),
        Block(
            "three ResNet-32",
            (
                Setting("independent", f"cifar100_independent:{_THREE}"),
                Setting("AFD, cycle", f"cifar100_afd:{_THREE}"),
                Setting("AFD, all pairs", f"cifar100_afd:{_THREE}", {"graph": "all_pairs"}),
            ),
            recipe,
            _SEEDS,
        ),
        Block(
            "ResNet-32 taught by ResNet-56",
            (
                Setting("independent", "cifar100_independent:resnet32,resnet56"),
                Setting("KD", "cifar100_kd:resnet32,resnet56", teachers=_TEACHER),
                Setting(
                    "L1+KD, offline",
                    "cifar100_alignment:resnet32",
                    {"graph": "own"},
                    teachers=_TEACHER,
                ),
                Setting("AFD, offline", "cifar100_afd_offline:resnet32", teachers=_TEACHER),
            ),
            recipe,
            _SEEDS,
        ),
    ),
)
