"""Two networks that learn from each other by AFD and from a frozen teacher by KD, on CIFAR-100.

  afd-train --config=cifar100_mixed:resnet32,resnet32,resnet110 --workdir=runs/mixed \
      --config.data.data_dir=DIR

The last name is the teacher: a network, trained first by the same recipe in WORKDIR/teacher_0, or
the folder of a finished run. The others learn from each other in a cycle.

What to expect: no paper has this graph, so there are no numbers. All of it is assumed but for the
losses, which are those of AFD (Chung et al., ICML 2020) and of KD (Hinton et al., 2015).
"""

import ml_collections

from afd_jax.engine.build import numbered
from afd_jax.graph import cyclic_pairs
from afd_jax.runs.presets import cifar100, slow_adam
from afd_jax.runs.settings import base_config, parse_arguments, smoke


def get_config(argument: str = "") -> ml_collections.ConfigDict:
    """The settings; all assumed."""
    config = base_config()
    (*networks, teacher), small = parse_arguments(argument, ("resnet32", "resnet32", "resnet110"))
    config.networks, config.teachers = tuple(networks), (teacher,)
    peers = numbered(networks)
    among = cyclic_pairs(peers) if len(peers) > 1 else ()
    kd = {"name": "kd", "temperature": 4.0, "distillation_weight": 0.9}
    config.method = {
        "name": "mixed",
        "by_edge": (
            *((source, target, {"name": "afd", "temperature": 3.0}) for source, target in among),
            *(("teacher", peer, kd) for peer in peers),
        ),
    }
    cifar100(config)
    slow_adam(config.optimizers.feature)
    slow_adam(config.optimizers.discriminator)
    return smoke(config) if small else config
