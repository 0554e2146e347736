"""Networks by name, and the contract for a network of one's own.

A network is any Flax Linen module with

    __call__(images [batch, height, width, channels], *, train: bool) -> Outputs

or NNX module with

    __call__(images [batch, height, width, channels]) -> Outputs

whose `Outputs` hold logits [batch, classes] and the last feature map [batch, height, width,
channels]; a plain tuple `(logits, features)` will do. `Outputs` may also hold the maps at the end
of each stage. It may keep BatchNorm statistics and drop units (in Linen with a "dropout" key).
For use by name from a config ("my_package.my_module:MyNetwork") it takes `classes`.

The fields of a Linen module must be hashable: tuples, not lists. To have its BatchNorm synchronised
under `pmap` and `shard_map`, it needs a field `axis_name: str | None = None` that it passes to
`nn.BatchNorm`. An NNX module, or what makes one when called with `rngs=...`, needs neither: its
`train()` and `eval()` are called, and every `nnx.BatchNorm` in it is told the axis.
"""

import functools
from collections.abc import Callable
from typing import Any

from flax import linen as nn

from afd_jax.errors import SettingError, one_of, require_number
from afd_jax.networks.densenet import DenseNet
from afd_jax.networks.imagenet_resnet import ImageNetResNet
from afd_jax.networks.imported import build
from afd_jax.networks.layers import he_fan_in
from afd_jax.networks.mobilenet import MobileNetV2
from afd_jax.networks.outputs import Outputs
from afd_jax.networks.preact_resnet import PreActResNet
from afd_jax.networks.resnet import CifarResNet
from afd_jax.networks.resnext import ResNeXt
from afd_jax.networks.shufflenet import ShuffleNetV1, ShuffleNetV2
from afd_jax.networks.vgg import VGG
from afd_jax.networks.wide_resnet import WideResNet

__all__ = [
    "NAMES",
    "VGG",
    "CifarResNet",
    "DenseNet",
    "ImageNetResNet",
    "MobileNetV2",
    "Outputs",
    "PreActResNet",
    "ResNeXt",
    "ShuffleNetV1",
    "ShuffleNetV2",
    "WideResNet",
    "create",
]


def _resnet(depth: int, times: int) -> Callable[..., nn.Module]:
    widths = (16 * times, 32 * times, 64 * times)
    stem = 16 if times == 1 else 8 * times
    return functools.partial(CifarResNet, depth=depth, widths=widths, stem_width=stem)


_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{f"resnet{d}": _resnet(d, 1) for d in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{d}x{k}": _resnet(d, k) for k in (2, 4) for d in (8, 14, 20, 32, 44, 56, 110)},
    **{
        f"wrn-{d}-{k}": functools.partial(WideResNet, depth=d, factor=k)
        for d in (16, 22, 28, 40)
        for k in (1, 2, 4, 8, 10)
    },
    **{f"preact_resnet{d}": functools.partial(PreActResNet, depth=d) for d in (18, 34, 50)},
    **{f"imagenet_resnet{d}": functools.partial(ImageNetResNet, depth=d) for d in (18, 34, 50)},
    **{
        f"cifar_resnet{d}": functools.partial(ImageNetResNet, depth=d, small=True)
        for d in (18, 34, 50)
    },
    **{f"vgg{d}": functools.partial(VGG, depth=d) for d in (8, 11, 13, 16, 19)},
    "densenet-40-12": functools.partial(DenseNet, depth=40, growth=12),
    "densenet-bc-100-12": functools.partial(DenseNet, depth=100, growth=12, bottleneck=True),
    **{f"resnext29-{c}x64d": functools.partial(ResNeXt, groups=c) for c in (2, 4, 8, 16)},
    # What OKDDip and PCL call ResNet-110, WRN-20-8, VGG-16 and DenseNet-40-12.
    "okddip_resnet110": functools.partial(CifarResNet, depth=110, bottleneck=1),
    "okddip_wrn-20-8": functools.partial(CifarResNet, depth=20, bottleneck=8),
    "okddip_vgg16": functools.partial(VGG, depth=16, halvings=5, hidden=(512, 512)),
    "okddip_densenet-40-12": functools.partial(
        DenseNet, depth=40, growth=12, bottleneck=True, kernel_init=he_fan_in
    ),
    "mobilenet_v2": MobileNetV2,
    "shufflenet_v1": ShuffleNetV1,
    "shufflenet_v2": ShuffleNetV2,
}
NAMES = tuple(_BUILDERS)


def create(name: str, classes: int) -> Any:
    """Builds a network by name.

    Args:
      name: one of `NAMES`, or "package.module:Class" for a Linen or NNX module of one's own.
        `resnet8x4` has four times the channels in its stages and twice in its stem.
      classes: number of classes.

    Returns:
      A Linen module; for an NNX class what makes the module when called with `rngs=...`.

    Raises:
      SettingError: if the name is unknown, the class cannot be imported, or the number of classes
        is none.

    >>> create("resnet20", classes=100).depth
    20
    """
    require_number("classes", classes, least=1, whole=True)
    if ":" in str(name):
        return build("networks", name, classes=classes)
    if not isinstance(name, str) or name not in _BUILDERS:
        raise SettingError("networks", name, one_of(name, NAMES) + ", or 'package.module:Class'")
    return _BUILDERS[name](classes)
