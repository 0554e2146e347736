"""Weights of public PyTorch networks, by their names there, as variables of the networks here.

Pure: arrays in, arrays out. `FAMILIES` has the names that the public codes give their layers:
RepDistiller and mdistiller for networks on small images, CS-KD for the pre-activated ResNets, and
torchvision for the ResNets on large images. Kernels go from [out, in, height, width] to [height,
width, in, out], matrices from [out, in] to [in, out]; BatchNorm's numbers are taken as they are.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from afd_jax.networks.functional import draw, functional
from afd_jax.networks.imagenet_resnet import ImageNetResNet
from afd_jax.networks.mobilenet import MobileNetV2
from afd_jax.networks.preact_resnet import PreActResNet
from afd_jax.networks.resnet import CifarResNet
from afd_jax.networks.shufflenet import ShuffleNetV1, ShuffleNetV2
from afd_jax.networks.vgg import VGG
from afd_jax.networks.wide_resnet import WideResNet

KINDS = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
_BLOCK = re.compile(r"stage(\d+)_(?:block|layer)(\d+)(_and_on)?")
_SHOWN = 4  # names in a message


@dataclasses.dataclass(frozen=True)
class Names:
    """How PyTorch code names the layers of one family of networks; "a|b" is a or b.

    In theirs, {stage} counts stages from 1 and {row} from 0, {block} counts blocks from 0; {conv}
    and {norm} are the places of the block's layers in a row of convolution, BatchNorm and ReLU.

    Attributes:
      outside: by our name of a layer that is in no block.
      block: of a block.
      inside: by our name of a layer in a block.
      first: likewise, where the first block of a stage differs.
    """

    outside: Mapping[str, str]
    block: str
    inside: Mapping[str, str]
    first: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def choices(self, layer: str, length: int) -> Iterator[list[str]]:
        """What a layer here may be called there.

        Args:
          layer: our name, "stage1_block2/conv1".
          length: how many blocks a loop (`networks.chain`) keeps under the name; else unused.

        Yields:
          For each layer there the names that it may have.

        Raises:
          KeyError: if none is known.
        """
        head, _, rest = layer.partition("/")
        match = _BLOCK.fullmatch(head)
        if not match:
            yield self.outside[layer].split("|")
            return
        stage, begin = int(match[1]), int(match[2]) - 1
        for block in range(begin, begin + (length if match[3] else 1)):
            own = {**self.inside, **self.first} if block == 0 else self.inside
            numbers = {"stage": stage, "row": stage - 1, "block": block}
            numbers |= {"conv": 3 * block, "norm": 3 * block + 1}
            yield [f"{self.block}.{name}".format(**numbers) for name in own[rest].split("|")]


def _pair(ours: str, conv: str, norm: str) -> dict[str, str]:
    return {f"{ours}/conv": conv, f"{ours}/norm": norm}


def _pairs(numbers: Mapping[int, int]) -> dict[str, str]:
    """Our conv1, conv2, ... with BatchNorm, by what number they have there."""
    return {
        ours: theirs
        for own, other in numbers.items()
        for ours, theirs in _pair(f"conv{own}", f"conv{other}", f"bn{other}").items()
    }


_LAYER = "layer{stage}.{block}"
_STEM = _pair("stem", "conv1", "bn1")
_PLAIN = {f"conv{n}": f"conv{n}" for n in (1, 2, 3)} | {f"norm{n}": f"bn{n}" for n in (1, 2, 3)}
_RESIDUAL = {  # basic blocks, then bottlenecks
    **_PLAIN,
    "shortcut": "downsample.0|shortcut.0",
    "shortcut_norm": "downsample.1|shortcut.1",
    **_pairs({1: 1, 2: 2, 3: 3}),
    **_pair("shortcut", "downsample.0|shortcut.0", "downsample.1|shortcut.1"),
}

FAMILIES: Mapping[type[nn.Module], Names] = {
    CifarResNet: Names(
        {"stem": "conv1", "stem_norm": "bn1", "classifier/linear": "fc"}, _LAYER, _RESIDUAL
    ),
    ImageNetResNet: Names({**_STEM, "classifier/linear": "fc|linear"}, _LAYER, _RESIDUAL),
    PreActResNet: Names(
        {**_STEM, "classifier/linear": "linear|fc"}, _LAYER, {**_PLAIN, "shortcut": "shortcut.0"}
    ),
    WideResNet: Names(
        {"stem": "conv1", "norm": "bn1", "classifier/linear": "fc"},
        "block{stage}.layer.{block}",
        {**_PLAIN, "shortcut": "convShortcut"},
    ),
    VGG: Names(
        {"classifier/linear": "classifier"},
        "block{row}",
        {"conv": "{conv}", "norm": "{norm}"},
    ),
    MobileNetV2: Names(
        {
            **_pair("stem", "conv1.0", "conv1.1"),
            **_pair("last", "conv2.0", "conv2.1"),
            "classifier/linear": "classifier.0|classifier",
        },
        "blocks.{row}.{block}",
        {
            **_pair("expand", "conv.0", "conv.1"),
            **_pair("depthwise", "conv.3", "conv.4"),
            **_pair("project", "conv.6", "conv.7"),
        },
    ),
    ShuffleNetV1: Names(
        {**_STEM, "classifier/linear": "linear"}, _LAYER, _pairs({1: 1, 2: 2, 3: 3})
    ),
    ShuffleNetV2: Names(
        {**_STEM, **_pair("last", "conv2", "bn2"), "classifier/linear": "linear"},
        _LAYER,
        _pairs({1: 1, 2: 2, 3: 3}),
        first={
            **_pair("pass1", "conv1", "bn1"),
            **_pair("pass2", "conv2", "bn2"),
            **_pairs({1: 3, 2: 4, 3: 5}),
        },
    ),
}


def from_pytorch(
    tensors: Mapping[str, np.ndarray], module: Any, image_shape: Sequence[int]
) -> dict[str, Any]:
    """Variables of a network from a PyTorch state dict, of which every tensor is accounted for.

    Args:
      tensors: by name; a prefix of DataParallel or torch.compile that all share is left out.
        BatchNorm's num_batches_tracked means nothing here and is ignored.
      module: of a class in `FAMILIES`.
      image_shape: (height, width, channels) of images that it takes.

    Returns:
      {"params": ..., "batch_stats": ...}, in float64 where the tensors are, else in float32.

    Raises:
      ValueError: if no names are known for the module, or it computes something else there; or
        tensors are missing, unknown, of another shape, no floating-point numbers or not finite;
        they are named.
    """
    if type(module) not in FAMILIES:
        known = ", ".join(sorted(family.__name__ for family in FAMILIES))
        raise ValueError(
            f"no PyTorch names are known for {type(module).__name__}, only for {known}"
        )
    if isinstance(module, VGG) and module.halvings == 3 and image_shape[0] == 64:
        raise ValueError(
            "RepDistiller's VGG halves images of 64x64 a fourth time; the network must be "
            f"VGG({module.classes}, depth={module.depth}, halvings=4)"
        )
    reading = _Reading(FAMILIES[type(module)], _without_prefix(tensors))

    def shapes(key: jax.Array) -> Any:
        return draw(functional(module), (*image_shape,), 0, key)

    wanted = jax.eval_shape(shapes, jax.random.key(0))
    found: dict[str, Any] = jax.tree.map_with_path(reading.leaf, dict(wanted))
    reading.require_nothing_left()
    return found


def _without_prefix(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return _without_prefix({n.removeprefix(prefix): x for n, x in tensors.items()})
    return dict(tensors)


class _Reading:
    """Reads leaf by leaf, and notes what does not fit, to say it all at once."""

    def __init__(self, names: Names, tensors: dict[str, np.ndarray]):
        self._names, self._tensors = names, tensors
        self._used: set[str] = set()
        self._missing: list[str] = []
        self._wrong: list[str] = []

    def leaf(self, path: Any, like: jax.ShapeDtypeStruct) -> Any:
        """The array for one leaf of the variables; blocks in a loop are stacked."""
        _, *layers, kind = (key.key for key in path)
        layer, length = "/".join(layers), like.shape[0]
        try:
            choices = list(self._names.choices(layer, length))
        except KeyError as error:
            raise ValueError(f"no PyTorch name is known for the layer {layer}") from error
        looped = "_and_on" in layer
        shape = like.shape[1:] if looped else like.shape
        arrays = [self._read([f"{c}.{KINDS[kind]}" for c in own], shape) for own in choices]
        if any(array is None for array in arrays):
            return None
        return np.stack(arrays) if looped else arrays[0]

    def _read(self, names: Sequence[str], shape: tuple[int, ...]) -> Any:
        name = next((name for name in names if name in self._tensors), None)
        if name is None:
            self._missing.append(" or ".join(names))
            return None
        self._used.add(name)
        tensor, order = self._tensors[name], tuple(reversed(range(len(shape))))
        if len(shape) == 4:  # a kernel, [height, width, in, out] here
            order = (2, 3, 1, 0)
        wanted = tuple(shape[order.index(axis)] for axis in range(len(shape)))
        if tensor.shape != wanted:
            self._wrong.append(f"{name} has shape {tensor.shape}, the network needs {wanted}")
        elif not jnp.issubdtype(tensor.dtype, jnp.floating):
            self._wrong.append(f"{name} holds {tensor.dtype}, not floating-point numbers")
        else:
            array = tensor.astype(jnp.promote_types(tensor.dtype, np.float32))
            if np.isfinite(array).all():
                return np.ascontiguousarray(array.transpose(order))
            self._wrong.append(f"{name} holds numbers that are not finite")
        return None

    def require_nothing_left(self) -> None:
        """Raises ValueError for tensors that are missing, unknown or wrong."""
        counts = {
            f"{name.rpartition('.')[0]}.num_batches_tracked"
            for name in self._used
            if name.endswith(".running_mean")
        }
        unknown = [name for name in self._tensors if name not in {*self._used, *counts}]
        problems = [
            words + _some(names)
            for words, names in (("lacks ", self._missing), ("no use for ", unknown))
            if names
        ]
        if self._wrong:
            problems.append(_some(self._wrong))
        if problems:
            raise ValueError("; ".join(problems))


def _some(names: Sequence[str]) -> str:
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join([*names[:_SHOWN], *more])
