"""Networks and branches that teach each other, compared with PCL's table. For GPUs.

  python -m experiments.study online --hours 24 --seeds-at-once 3 --data-dir DIR

The published figures are top-1 accuracy on CIFAR-100 from PCL's paper (Wu and Gong, AAAI 2021). All
methods share one recipe: 300 epochs, batch size 128, SGD 0.1 with Nesterov momentum and weight
decay 5e-4, the rate multiplied by 0.1 at epochs 150 and 225. We do not know how many networks DML
and KDCL have there and assume pairs. Our tables show the mean over a network's branches. OKDDip's
leader and the averages over time of PCL's branches have rows of their own, because the published
figures are theirs: the leader's for OKDDip and, we assume from a summary of Algorithm 1, the first
branch's average for PCL. Our row for PCL is the mean over all branches' averages.

Figures may differ for other reasons. The authors of ONE and OKDDip report the best test epoch,
PCL's do not say which, and we report the last. The sizes of the networks suggest that PCL's authors
used OKDDip's code. If so, the branches of VGG-16 had dropout of 0.5 in the linear layers, those of
DenseNet shared the last block, and the leader of OKDDip's DenseNet lacked the last BatchNorm and
ReLU. Our networks differ in all three.
"""

import ml_collections

from afd_jax.runs.presets import CIFAR100, cifar100, zero_padded
from experiments.study.plan import Block, Setting, Study


def recipe(config: ml_collections.ConfigDict, seed: int) -> None:
    """PCL's recipe, for every method."""
    cifar100(config)
    zero_padded(config, CIFAR100)  # assumed
    config.optimizers.logit.nesterov = True
    config.optimizers.logit.weight_decay = 5e-4
    config.eval_every = "10 epochs"
    config.checkpoint_every = "5 epochs"


_METHODS = ("DML", "KDCL", "ONE", "OKDDip", "PCL")
_PUBLISHED = {
    "resnet32": (73.68, 73.76, 73.79, 73.25, 74.14),
    "okddip_resnet110": (77.86, 78.28, 78.40, 78.54, 79.98),
    "okddip_densenet-40-12": (73.06, 72.52, 71.60, 71.23, 73.09),
    "okddip_vgg16": (75.52, 75.67, 74.37, 74.68, 76.89),
    "okddip_wrn-20-8": (79.77, 79.37, 79.10, 78.83, 80.51),
}
_NODE = {"OKDDip": "{} leader", "PCL": "average of {}"}  # which row a figure is of


def _block(network: str, published: tuple[float, ...]) -> Block:
    taught = []
    for method, accuracy in zip(_METHODS, published):
        names = f"{network},{network}" if method in ("DML", "KDCL") else network
        config = f"cifar100_{method.lower()}:{names}"
        node = _NODE.get(method, "{}").format(network)
        taught.append(Setting(method, config, published={node: accuracy}))
    alone = Setting("independent", f"cifar100_independent:{network}")
    return Block(network, (alone, *taught), recipe, seeds=(0, 1, 2))


STUDY = Study(
    question="Do the online methods reach what was published for them on CIFAR-100?",
    blocks=tuple(_block(network, published) for network, published in _PUBLISHED.items()),
)
