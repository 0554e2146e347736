"""Knowledge review of a frozen teacher's stages, on CIFAR-100 (Chen, Liu, Zhao, Jia; CVPR 2021).

  afd-train --config=cifar100_reviewkd:resnet32,resnet110 --workdir=runs/reviewkd \
      --config.data.data_dir=DIR

The first name is the student, the others are its teachers: networks, each trained first by the same
recipe in WORKDIR/teacher_0, ..., or folders of finished runs (`:resnet32,runs/teacher`).
The authors' code skips a VGG's first stage: for two VGGs, `'--config.method.stages=(2,3,4,5)'`. If
only one network is a VGG, set both, as for `mobilenet_v2,vgg13`:
`'--config.method.stages=(1,2,3,4)' '--config.method.teacher_stages=(2,3,4,5)'`.
`--config.method.hint_weight` depends on the pair, in the authors' code:

  resnet32,resnet110        1
  resnet20,resnet56         0.6
  shufflenet_v2,resnet32x4  8
  resnet8x4,resnet32x4; wrn-16-2,wrn-40-2; wrn-40-1,wrn-40-2; shufflenet_v1,resnet32x4;
  shufflenet_v1,wrn-40-2    5

The ShuffleNets learn at a rate of 0.02: train their teachers by themselves, and give the folders
(`:shufflenet_v1,runs/resnet32x4`).

What to expect: figures of this form are not known to us. As in the authors' code, the student's
maps are those after the ReLU that ends a stage, the teacher's those before it.
"""

import ml_collections

from afd_jax.runs.presets import cifar100, zero_padded
from afd_jax.runs.settings import base_config, parse_student, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings, those of the authors' code (dvlab-research/ReviewKD)."""
    config = base_config()
    config.networks, config.teachers, small = parse_student(argument, "resnet32", ("resnet110",))
    config.method = {
        "name": "reviewkd",
        "hint_weight": 1.0,
        "ramp_up_epochs": 20.0,
        "stages": (),  # all
        "label_weight": 1.0,
        "distillation_weight": 0.0,
    }
    cifar100(config)
    means, deviations = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)
    zero_padded(config, (tuple(x / 255 for x in means), tuple(x / 255 for x in deviations)))
    config.duration = "240 epochs"
    light = any(name.startswith(("mobilenet", "shufflenet")) for name in config.networks)
    logit = config.optimizers.logit
    logit.learning_rate = 0.02 if light else 0.1
    logit.nesterov = True
    logit.weight_decay = 5e-4
    # The authors' code lowers the rate at the end of its epochs 150, 180 and 210, counted from 0.
    at = (151 / 240, 181 / 240, 211 / 240)
    logit.schedule = {"name": "step", "at": at, "factor": 0.1}
    return smoke(config) if small else config
