"""Networks by name, and the contract for a network of one's own.

A network is any Flax module with

    __call__(images [batch, height, width, channels], *, train: bool) -> Outputs

whose `Outputs` hold logits [batch, classes] and the last feature map [batch, height, width,
channels]; a plain tuple `(logits, features)` will do. It may keep BatchNorm statistics in the
collection "batch_stats" and use a "dropout" key. To have BatchNorm synchronised under `pmap` and
`shard_map`, it needs a field `axis_name: str | None = None` that it passes to `nn.BatchNorm`. For
use by name from a config ("my_package.my_module:MyNetwork") it needs a field `classes`.
"""

import importlib
import re

from flax import linen as nn

from afd_jax.errors import SettingError, one_of
from afd_jax.networks.outputs import Outputs
from afd_jax.networks.resnet import CifarResNet

__all__ = ["NAMES", "CifarResNet", "Outputs", "create"]

NAMES = tuple(
    f"resnet{depth}{width}" for width in ("", "x2", "x4") for depth in (8, 14, 20, 32, 44, 56, 110)
)


def create(name: str, classes: int) -> nn.Module:
    """Builds a network by name.

    Args:
      name: one of `NAMES`, or "package.module:Class" for a Flax module of one's own. `resnet8x4`
        has four times the channels in its stages and twice in its stem.
      classes: number of classes.

    Raises:
      SettingError: if the name is unknown or the class cannot be imported.

    >>> create("resnet20", classes=100).depth
    20
    """
    if ":" in str(name):
        return _imported(name, classes)
    if name not in NAMES:
        raise SettingError("networks", name, one_of(name, NAMES) + ", or 'package.module:Class'")
    depth, factor = re.fullmatch(r"resnet(\d+)(?:x(\d))?", name).groups()  # type: ignore[union-attr]
    times = int(factor or 1)
    return CifarResNet(
        classes,
        depth=int(depth),
        widths=(16 * times, 32 * times, 64 * times),
        stem=16 if times == 1 else 8 * times,
    )


def _imported(name: str, classes: int) -> nn.Module:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)(classes=classes)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        remedy = f"could not build it ({error}); give an importable 'package.module:Class'"
        raise SettingError("networks", name, remedy) from error
