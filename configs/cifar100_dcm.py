"""Dense cross-layer mutual distillation on CIFAR-100 (Yao, Sun; ECCV 2020).

  afd-train --config=cifar100_dcm:wrn-28-10,wrn-28-10 --workdir=runs/dcm \
      --config.data.data_dir=DIR

`--config.method.cross_stage=False` lets only classifiers of the same stage teach each other.

What to expect (top-1): WRN-28-10 alone 81.28 %, DML 82.11 and 82.05 %, DCM 83.39 and 83.35 % (the
paper).
"""

import ml_collections

from afd_jax.runs.presets import cifar100
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings, those of the authors' code (sundw2014/DCM) for WRN-28-10."""
    config = base_config()
    config.networks, small = parse_arguments(argument, ("wrn-28-10", "wrn-28-10"))
    config.graph = "all_pairs"
    config.method = {
        "name": "dcm",
        "temperature": 1.0,
        "distillation_weight": 1.0,
        "cross_stage": True,
        "depth": 4,  # of WRN-28's own stages
    }
    cifar100(config)
    config.data.mean = (125.3 / 255, 123.0 / 255, 113.9 / 255)
    config.data.std = (63.0 / 255, 62.1 / 255, 66.7 / 255)
    config.duration = "200 epochs"
    logit = config.optimizers.logit
    logit.weight_decay = 5e-4
    # The authors' code lowers the rate when the 60th, 120th and 160th epochs begin.
    logit.schedule = {"name": "step", "at": (59 / 200, 119 / 200, 159 / 200), "factor": 0.2}
    return smoke(config) if small else config
