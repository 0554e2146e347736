"""One evaluation of all networks: pure functions for every method, as sums over a batch."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from afd_jax import losses
from afd_jax.engine.cohort import Cohort
from afd_jax.networks.outputs import as_nodes
from afd_jax.engine.state import TrainState

Batch = Mapping[str, jax.Array]
"""{"image": [batch, h, w, c], "label": [batch], "index": [batch]}; for methods that pair images
"partner_image" and "partner", one of the same class and its index; "mask" [batch] in evaluation."""

Sums = dict[str, jax.Array]


def images_as_they_are(rng: jax.Array, batch: Batch) -> jax.Array:
    """The default preprocessing: none."""
    return batch["image"]


def eval_step(
    cohort: Cohort,
    state: TrainState,
    batch: Batch,
    *,
    preprocess: Callable[[jax.Array, Batch], jax.Array] = images_as_they_are,
    axis_name: str | None = None,
) -> Sums:
    """Sums over one batch with running statistics; add them up over the set, then divide.

    Args:
      cohort: networks and method; static.
      state: of the run.
      batch: as in `train_step`; "mask" [batch] is False for padding.
      preprocess: normalisation; its key is a constant.
      axis_name: the device axis, inside pmap or shard_map.

    Returns:
      "count" [], "correct" [nodes], "cross_entropy" [nodes] in nats, and "ensemble_correct" [] of
      the averaged probabilities of the `cohort.members`.
    """
    label, mask = batch["label"], batch["mask"]
    logits = eval_logits(cohort, state, preprocess(jax.random.key(0), batch))
    probabilities = [jax.nn.softmax(z.astype(jnp.float32)) for z in logits[: cohort.members]]
    sums = {
        "count": jnp.sum(mask.astype(jnp.int32)),
        "correct": jnp.stack([jnp.sum(hits(z, label) & mask) for z in logits]),
        "cross_entropy": jnp.stack(
            [jnp.sum(losses.cross_entropy(z, label, where=mask)) for z in logits]
        ),
        "ensemble_correct": jnp.sum(hits(jnp.asarray(sum(probabilities)), label) & mask),
    }
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)


def heldout_step(
    cohort: Cohort,
    state: TrainState,
    batch: Batch,
    *,
    preprocess: Callable[[jax.Array, Batch], jax.Array] = images_as_they_are,
    axis_name: str | None = None,
) -> Any:
    """What the method wants to know about a held-out batch, as sums; arguments as `eval_step`."""
    logits = eval_logits(cohort, state, preprocess(jax.random.key(0), batch))
    sums = cohort.method.heldout_sums(logits, batch["label"], batch["mask"])
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)


def eval_logits(cohort: Cohort, state: TrainState, images: jax.Array) -> list[jax.Array]:
    """Logits [batch, classes] of every node, with running statistics; images are normalised."""
    return [
        output.logits
        for peer, own in zip(cohort.peers, state.peers, strict=True)
        for output in as_nodes(
            peer.network.apply(
                {"params": own.params["network"], **own.statistics["network"]}, images, train=False
            )
        )
    ]


def hits(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether the largest logit is the label's, [batch] bool."""
    return jnp.argmax(logits, axis=-1) == labels
