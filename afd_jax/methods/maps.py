"""Bringing the feature maps of an edge to one shape, and measuring them."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn

from afd_jax import losses
from afd_jax.errors import SettingError
from afd_jax.methods.method import View
from afd_jax.networks.heads import Transfer, common_shape
from afd_jax.networks.imported import build


def transfer(own: View, given: Any = "convolutional") -> dict[str, Any]:
    """A transfer layer where a node's map has not the common shape of all connected nodes.

    AFD, Chung et al., ICML 2020; the form is assumed, see `networks.heads.Transfer`. It trains with
    its own network's feature loss. A network that only teaches has none to train one with, so the
    others come to its shape.

    Args:
      own: the node, as in `Method.heads`.
      given: one's own in place of it, made with `shape`, (height, width, channels).

    Raises:
      SettingError: if networks that only teach have maps of several shapes.
    """
    if not own.sources:
        return {}
    fixed = {node.name: node.features.shape[1:] for node in own.connected if not node.sources}
    if len({*fixed.values()}) > 1:
        remedy = f"the networks {', '.join(fixed)} only teach, so no loss trains a transfer layer "
        remedy += f"for them; their maps need one shape, not {sorted({*fixed.values()})}"
        raise SettingError("graph", own.name, remedy)
    shapes = [*fixed.values()] or [node.features.shape[1:] for node in own.connected]
    common = common_shape(shapes)
    if own.features.shape[1:] == common:
        return {}
    plain = given == "convolutional"
    return {
        "transfer": Transfer(common) if plain else build("method.transfer", given, shape=common)
    }


def distances(own: jax.Array, other: jax.Array) -> dict[str, jax.Array]:
    """How far one map is from another, each [batch]: for the log."""
    return {
        "map_l1": losses.l1_alignment(own, other),
        "map_l2": losses.l2_alignment(own, other),
        "map_cosine": losses.cosine_distance(own, other),
    }


def stage(own: View, number: int, field: str) -> jax.Array:
    """The map at the end of a stage, counted from 1, or from the last by negative numbers.

    Raises:
      SettingError: if there is no such stage.
    """
    return own.stages[_counted(own, number, field) - 1]


def stage_numbers(own: View, numbers: Sequence[int], field: str) -> list[int]:
    """Several stages, counted from 1; all if none are named. Raises as `stage`."""
    return [_counted(own, n, field) for n in numbers or range(1, len(own.stages) + 1)]


def _counted(own: View, number: int, field: str) -> int:
    count = len(own.stages)
    if not (0 < number <= count or -count <= number < 0):
        remedy = f"{own.name} has {count} stages; choose one of them"
        raise SettingError(field, number, remedy)
    return number if number > 0 else count + 1 + number


def paired_stages(
    own: View, source: View, stages: Sequence[int], teacher_stages: Sequence[int]
) -> list[tuple[int, int]]:
    """The stages of two nodes that are compared, counted from 1; as the options of these names.

    Raises:
      SettingError: if the numbers of stages differ, and none are chosen.
    """
    ours = stage_numbers(own, stages, "method.stages")
    theirs = stage_numbers(source, teacher_stages or stages, "method.teacher_stages")
    if len(ours) != len(theirs):
        remedy = f"maps are compared stage by stage, but {own.name} has {len(ours)} and "
        remedy += f"{source.name} {len(theirs)}; choose as many of each, such as (1, 2, -1)"
        raise SettingError("method.stages", tuple(stages), remedy)
    return [*zip(ours, theirs, strict=True)]


def pooled(maps: jax.Array, size: Sequence[int]) -> jax.Array:
    """Maps [batch, height, width, channels] averaged down to `size`, evenly where it divides."""
    height, width = maps.shape[1:3]
    if (height, width) == tuple(size):
        return maps
    if height % size[0] or width % size[1]:
        remedy = f"maps of {(height, width)} cannot be averaged to {tuple(size)}; choose stages "
        raise SettingError("method.stages", (height, width), remedy + "whose sizes divide")
    window = (height // size[0], width // size[1])
    return nn.avg_pool(maps, window, window)


def smaller(one: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two maps, the larger in height or width averaged down to the other."""
    size = [min(sides) for sides in zip(one.shape[1:3], other.shape[1:3], strict=True)]
    return pooled(one, size), pooled(other, size)
