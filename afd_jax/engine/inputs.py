"""What the networks see at a step: views of the batch, mixtures, partners, and its random keys."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from afd_jax import losses
from afd_jax.engine.evaluate import Images
from afd_jax.engine.forward import apply
from afd_jax.engine.plan import ByNode, Plan
from afd_jax.engine.reduce import Reduce
from afd_jax.engine.state import TrainState

Shares = Callable[[jax.Array, int, int], jax.Array]
"""(rng, height, width) to each pixel's share, [height, width], in [0, 1]."""


def keys_of(state: TrainState) -> tuple[jax.Array, jax.Array]:
    """The keys of this step: of augmentation, and of networks that draw random numbers."""
    rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    image_rng, network_rng = jax.random.split(rng)
    return image_rng, network_rng


def loss_key(image_rng: jax.Array) -> jax.Array:
    """The key that losses draw from, the same on all devices."""
    return jax.random.fold_in(image_rng, 3)


def views(
    plan: Plan, preprocess: Images, rng: jax.Array, batch: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """What each network sees of a batch: all the same, or each its own; a twin as its original.

    A network of several views gets them beside each other, on axis 1.
    """
    if not plan.own_augmentation:
        same = preprocess(rng, batch)
        return {name: same for name in plan.networks}

    def augmented(start: int, view: int) -> jax.Array:
        return preprocess(jax.random.fold_in(jax.random.fold_in(rng, start), view), batch)

    return {
        name: augmented(network.start, 0)
        if network.views == 1
        else jnp.stack([augmented(network.start, v) for v in range(network.views)], axis=1)
        for name, network in plan.networks.items()
    }


def mixed(
    plan: Plan,
    share: jax.Array,
    images: Mapping[str, jax.Array],
    batch: Mapping[str, jax.Array],
    reduce: Reduce,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Every image and its label mixed with those opposite in the batch.

    Where networks see views of their own, the views differ and the mixture is the same: networks
    that teach each other must look at the same classes.

    Args:
      plan: of the run.
      share: of the image itself, [height, width].
      images: by network, as from `views`.
      batch: with "label".
      reduce: over devices.

    Returns:
      The images, and the batch with "soft_label" [batch, classes]; "label" is the class that has
      the larger share.
    """
    own = jnp.mean(share)
    label, others = batch["label"], reduce.opposite(batch["label"])
    sure = functools.partial(losses.label_distribution, classes=plan.classes, correct=1.0)
    soft = own * sure(label) + (1 - own) * sure(others)
    found: dict[int, jax.Array] = {}  # networks often see the same array
    for x in images.values():
        if id(x) not in found:
            pixels = share.reshape((1,) * (x.ndim - 3) + share.shape + (1,))
            found[id(x)] = pixels * x + (1 - pixels) * reduce.opposite(x)
    batch = {**batch, "soft_label": soft, "label": jnp.where(own >= 0.5, label, others)}
    return {name: found[id(x)] for name, x in images.items()}, batch


def partners_of(
    plan: Plan,
    state: TrainState,
    preprocess: Images,
    keys: tuple[jax.Array, jax.Array],
    batch: Mapping[str, Any],
) -> ByNode:
    """What each student says of another image of the same class, where the batch has them.

    It runs as in training, with the statistics of those images, which are not kept.
    """
    if "partner_image" not in batch:
        return {}
    others = {**batch, "image": batch["partner_image"], "index": batch.get("partner")}
    image_rng, network_rng = keys
    images = preprocess(jax.random.fold_in(image_rng, 1), others)
    partners: ByNode = {}
    for n, (name, network) in enumerate(plan.networks.items()):
        if network.role == "student":
            own, key = state.networks[name], jax.random.fold_in(network_rng, n)
            rngs = {"dropout": jax.random.fold_in(key, 1)}
            partners |= apply(plan, network, own.params, own.statistics, images, rngs)[0]
    return partners
