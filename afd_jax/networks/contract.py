"""What a network must return, checked before anything is compiled."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from afd_jax.errors import SettingError, first_line
from afd_jax.networks.functional import Functional, blank_images, draw, run
from afd_jax.networks.outputs import Outputs, as_nodes


def check_networks(
    field: str,
    names: Sequence[str],
    networks: Sequence[Functional],
    image_shape: tuple[int, int, int],
    classes: int,
) -> list[Outputs]:
    """Traces each network in evaluation and in training.

    Args:
      field: what they are called in errors, "networks".
      names: likewise, one for each.
      networks: equal ones are traced once.
      image_shape: (height, width, channels).
      classes: number of classes.

    Returns:
      The shapes of what each returns in training, for a batch of two.

    Raises:
      SettingError: for a network that cannot take the images, or does not return what it must.
    """
    return [
        _check_network(f"{field}[{k}]", name, network, image_shape, classes)
        for k, (name, network) in enumerate(zip(names, networks, strict=True))
    ]


def _check_network(
    field: str, name: str, network: Functional, image_shape: tuple[int, int, int], classes: int
) -> Outputs:
    def answers(key: jax.Array) -> Any:  # in the forms that are traced later, and found then
        variables = draw(network, image_shape, 0, key)
        images = blank_images(image_shape)
        evaluated, _ = run(network, variables, images, {}, train=False)
        trained, statistics = run(network, variables, images, {"dropout": key}, train=True)
        before = {name: own for name, own in variables.items() if name != "params"}
        return (evaluated, trained), before, statistics

    try:
        results, before, statistics = jax.eval_shape(answers, jax.random.key(0))
    except SettingError as error:
        raise SettingError(f"{field} ({name}): {error.field}", error.value, error.remedy) from error
    except Exception as error:
        remedy = f"cannot take images of shape {image_shape}: {first_line(error)}"
        raise SettingError(field, name, remedy) from error
    for result, mode in zip(results, ("train=False", "train=True"), strict=True):
        problem = _problem(result, classes)
        if problem:
            raise SettingError(field, name, f"{problem} with {mode}")
    for collection in sorted({*before, *statistics}):
        if _shapes(before.get(collection)) != _shapes(statistics.get(collection)):
            remedy = f"its collection {collection!r} changes its structure or its shapes in "
            remedy += "training; what a network keeps must stay alike from step to step"
            raise SettingError(field, name, remedy)
    evaluated, trained = (as_nodes(result)[0] for result in results)
    if evaluated.features.shape != trained.features.shape:
        remedy = "must return feature maps of one shape with train=True and train=False"
        raise SettingError(field, name, remedy)
    return trained


def _shapes(collection: Any) -> Any:
    return [(path, array.shape) for path, array in jax.tree.leaves_with_path(collection)]


def _problem(result: Any, classes: int) -> str | None:
    """What is wrong with a network's answer to two images, if anything is."""
    if not isinstance(result, Outputs) and not (isinstance(result, tuple) and len(result) == 2):
        return f"must return Outputs(logits, features), returns {type(result).__name__}"
    if len(as_nodes(result)) > 1:
        return "must return Outputs(logits, features), returns several"
    (outputs,) = as_nodes(result)
    logits, features = outputs.logits, outputs.features
    shape = getattr(logits, "shape", None)
    if shape != (2, classes):
        return f"must return logits of shape [batch, {classes}], returns {_batched(shape)}"
    shape = getattr(features, "shape", None)
    if shape is None or len(shape) != 4 or shape[0] != 2 or 0 in shape:
        return (
            "must return a feature map [batch, height, width, channels] beside the logits, "
            f"returns {_batched(shape)}"
        )
    for kind in ("stages", "preactivations"):
        for shape in (getattr(array, "shape", None) for array in getattr(outputs, kind)):
            if shape is None or len(shape) != 4 or shape[0] != 2:
                return (
                    f"must return {kind} as maps [batch, height, width, channels], returns one of "
                    f"{_batched(shape)}"
                )
    if outputs.preactivations and len(outputs.preactivations) != len(outputs.stages):
        numbers = f"{len(outputs.preactivations)} and {len(outputs.stages)}"
        return f"must return as many preactivations as stages, returns {numbers}"
    for path, array in jax.tree.leaves_with_path(outputs):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            what = jax.tree_util.keystr(path, simple=True, separator=".")
            return f"must return floating-point arrays; its {what} are {array.dtype}"
    return None


def _batched(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else f"[{', '.join(['batch', *map(str, shape[1:])])}]"
