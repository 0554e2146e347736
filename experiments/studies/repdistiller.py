"""The public table of offline methods on CIFAR-100: 13 pairs, 240 epochs. For GPUs.

  python -m experiments.study repdistiller --hours 48 --seeds-at-once 3 --data-dir DIR

The published figures come from RepDistiller's README. Those of DKD are of the best epoch and come
from LSKD's README or, for shufflenet_v1, from mdistiller's. All published runs share one teacher;
here each seed has its own. Three columns do not reproduce the table exactly. FT: RepDistiller's
differs from the authors' method, which we implement. FitNet, where the sizes of maps differ:
RepDistiller uses a transposed convolution, we resize bilinearly. CRD: we draw negatives from all
images.

Several GPUs wait for each other's teachers. Train the teachers first: `--only '^teachers'`.
"""

from collections.abc import Iterator
from typing import Any

import ml_collections

from afd_jax.runs.presets import cifar100_240
from experiments.study.plan import Block, Setting, Study


def recipe(config: ml_collections.ConfigDict, seed: int) -> None:
    """The table's recipe; the learning rate depends on the network that learns."""
    cifar100_240(config, config.networks)
    config.eval_every = "10 epochs"
    config.checkpoint_every = "5 epochs"


_SEEDS, _BASELINE = (0, 1, 2), "student alone"
_TEACHERS = {
    "wrn-40-2": 75.61,
    "resnet56": 72.34,
    "resnet110": 74.31,
    "resnet32x4": 79.42,
    "vgg13": 74.64,
    "cifar_resnet50": 79.34,
}
_TABLE = """
teacher        student       alone    KD FitNet    AT    SP   VID   RKD   PKT    FT   CRD   DKD
wrn-40-2       wrn-16-2      73.26 74.92  73.58 74.08 73.83 74.11 73.35 74.54 73.25 75.48 76.24
wrn-40-2       wrn-40-1      71.98 73.54  72.24 72.77 72.43 73.30 72.22 73.45 71.59 74.14 74.81
resnet56       resnet20      69.06 70.66  69.21 70.55 69.67 70.38 69.61 70.34 69.84 71.16 71.97
resnet110      resnet20      69.06 70.67  68.99 70.22 70.04 70.16 69.25 70.25 70.22 71.46 71.06
resnet110      resnet32      71.14 73.08  71.06 72.31 72.69 72.61 71.82 72.61 72.37 73.48 74.11
resnet32x4     resnet8x4     72.50 73.33  73.50 73.44 72.94 73.09 71.90 73.64 72.86 75.51 76.32
vgg13          vgg8          70.36 72.98  71.02 71.43 72.68 71.23 71.48 72.88 70.58 73.94 74.68
vgg13          mobilenet_v2  64.60 67.37  64.14 59.40 66.30 65.56 64.52 67.13 61.78 69.73 69.71
cifar_resnet50 mobilenet_v2  64.60 67.35  63.16 58.58 68.08 67.57 64.43 66.52 60.99 69.11 70.35
cifar_resnet50 vgg8          70.36 73.81  70.69 71.84 73.34 70.30 71.50 73.01 70.29 74.30     -
resnet32x4     shufflenet_v1 70.50 74.07  73.59 71.73 73.48 73.38 72.28 74.10 71.75 75.11 76.45
resnet32x4     shufflenet_v2 71.82 74.45  73.54 72.73 74.56 73.40 73.21 74.69 72.50 75.65 77.07
wrn-40-2       shufflenet_v1 70.50 74.83  73.73 73.32 74.52 73.61 72.21 73.89 72.03 76.05 76.70
"""

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
    """The public code skips a VGG's first stage: hint at the third, AT and VID at the others."""
    theirs, ours = (name.startswith("vgg") for name in (teacher, student))
    if column == "FitNet" and (theirs or ours):
        return {"method.stage": 3 if ours else 2, "method.teacher_stage": 3 if theirs else 2}
    if column in ("AT", "VID") and (theirs or ours):
        four = {True: (2, 3, 4, 5), False: (1, 2, 3, 4)}
        return {"method.stages": four[ours], "method.teacher_stages": four[theirs]}
    return {}


def _blocks() -> Iterator[Block]:
    """One for each pair of the table."""
    (_, _, *columns), *rows = (line.split() for line in _TABLE.strip().splitlines())
    for teacher, student, *figures in rows:
        found = []
        for column, figure in zip(columns, figures, strict=True):
            own = {} if figure == "-" else {student: float(figure)}
            if column == "alone":
                found.append(Setting(_BASELINE, f"cifar100_independent:{student}", published=own))
            else:
                config = f"cifar100_{column.lower()}:{student},{teacher}"
                changes = _stages(column, teacher, student)
                found.append(Setting(column, config, changes, (f"{teacher}@{teacher}",), own))
        name = f"{teacher} to {student}"
        yield Block(name, tuple(found), recipe, _SEEDS, baseline=_BASELINE, teachers=_ALONE)


STUDY = Study(
    question="Do the offline methods reach the public table on CIFAR-100?",
    blocks=(_ALONE, *_blocks()),
)
