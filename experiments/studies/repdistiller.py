"""The public table of offline methods on CIFAR-100: 13 pairs, 240 epochs. For GPUs.

  python -m experiments.study repdistiller --hours 48 --seeds-at-once 3 --data-dir DIR

The published figures come from the READMEs of RepDistiller and mdistiller; mdistiller reports the
best epoch. They use one teacher for all runs; here each seed has its own. RepDistiller's FT differs
from the authors' method, which we implement, so its line is not a reproduction.

Several GPUs wait for each other's teachers. Train the teachers first: `--only '^teachers'`.
"""

from typing import Any

import ml_collections

from afd_jax.runs.presets import cifar100_240
from experiments.study.plan import Block, Setting, Study


def recipe(config: ml_collections.ConfigDict, seed: int) -> None:
    """The table's recipe; the learning rate depends on the network that learns."""
    cifar100_240(config, config.networks)
    config.eval_every = "10 epochs"
    config.checkpoint_every = "5 epochs"


_SEEDS = (0, 1, 2)
_TEACHERS = {
    "wrn-40-2": 75.61,
    "resnet56": 72.34,
    "resnet110": 74.31,
    "resnet32x4": 79.42,
    "vgg13": 74.64,
    "cifar_resnet50": 79.34,
}
_COLUMNS = ("student alone", "KD", "FitNet", "AT", "FT")
_PAIRS = {
    ("wrn-40-2", "wrn-16-2"): (73.26, 74.92, 73.58, 74.08, 73.25),
    ("wrn-40-2", "wrn-40-1"): (71.98, 73.54, 72.24, 72.77, 71.59),
    ("resnet56", "resnet20"): (69.06, 70.66, 69.21, 70.55, 69.84),
    ("resnet110", "resnet20"): (69.06, 70.67, 68.99, 70.22, 70.22),
    ("resnet110", "resnet32"): (71.14, 73.08, 71.06, 72.31, 72.37),
    ("resnet32x4", "resnet8x4"): (72.50, 73.33, 73.50, 73.44, 72.86),
    ("vgg13", "vgg8"): (70.36, 72.98, 71.02, 71.43, 70.58),
    ("vgg13", "mobilenet_v2"): (64.60, 67.37, 64.14, 59.40, 61.78),
    ("cifar_resnet50", "mobilenet_v2"): (64.60, 67.35, 63.16, 58.58, 60.99),
    ("cifar_resnet50", "vgg8"): (70.36, 73.81, 70.69, 71.84, 70.29),
    ("resnet32x4", "shufflenet_v1"): (70.50, 74.07, 73.59, 71.73, 71.75),
    ("resnet32x4", "shufflenet_v2"): (71.82, 74.45, 73.54, 72.73, 72.50),
    ("wrn-40-2", "shufflenet_v1"): (70.50, 74.83, 73.73, 73.32, 72.03),
}

_ALONE = Block(
    "teachers",
    tuple(
        Setting(name, f"cifar100_independent:{name}", published={name: accuracy})
        for name, accuracy in _TEACHERS.items()
    ),
    recipe,
    _SEEDS,
    baseline="wrn-40-2",
)


def _stages(column: str, teacher: str, student: str) -> dict[str, Any]:
    """The public code skips a VGG's first stage: its hint is the third, its attention uses four."""
    theirs, ours = (name.startswith("vgg") for name in (teacher, student))
    if column == "FitNet" and (theirs or ours):
        return {"method.stage": 3 if ours else 2, "method.teacher_stage": 3 if theirs else 2}
    if column == "AT" and (theirs or ours):
        four = {True: (2, 3, 4, 5), False: (1, 2, 3, 4)}
        return {"method.stages": four[ours], "method.teacher_stages": four[theirs]}
    return {}


def _block(teacher: str, student: str, published: tuple[float, ...]) -> Block:
    found = []
    for column, accuracy in zip(_COLUMNS, published):
        own = {student: accuracy}
        if column == "student alone":
            found.append(Setting(column, f"cifar100_independent:{student}", published=own))
        else:
            config, taught_by = f"cifar100_{column.lower()}:{student}", (f"{teacher}@{teacher}",)
            changes = _stages(column, teacher, student)
            found.append(Setting(column, config, changes, taught_by, own))
    name = f"{teacher} to {student}"
    return Block(name, tuple(found), recipe, _SEEDS, baseline="student alone", teachers=_ALONE)


STUDY = Study(
    question="Do KD, FitNet, AT and FT reach the public table on CIFAR-100?",
    blocks=(_ALONE, *(_block(*pair, published) for pair, published in _PAIRS.items())),
)
