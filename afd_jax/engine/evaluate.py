"""One evaluation of networks: pure functions for every method, as sums over a batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from afd_jax import losses
from afd_jax.engine.plan import Plan
from afd_jax.engine.state import TrainState
from afd_jax.networks.functional import run
from afd_jax.networks.outputs import as_nodes

Images = Callable[[jax.Array, Mapping[str, jax.Array]], jax.Array]
"""(rng, batch) to float images [batch, height, width, channels]."""


def as_floats(rng: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
    """The default preprocessing: images as they are, but uint8 as fractions of 255."""
    images = batch["image"]
    return images / jnp.float32(255) if images.dtype == jnp.uint8 else images


def eval_step(
    plan: Plan,
    state: TrainState,
    batch: Mapping[str, jax.Array],
    *,
    networks: Sequence[str] | None = None,
    preprocess: Images = as_floats,
    axis_name: str | None = None,
) -> dict[str, Any]:
    """Sums over one batch with running statistics; add them up over the set, then divide.

    Args:
      plan: of the run; static.
      state: of the run.
      batch: as in `train_step`; "mask" [batch] is False for padding.
      networks: which to evaluate; all if None.
      preprocess: normalisation; its key is a constant.
      axis_name: the device axis, inside pmap or shard_map.

    Returns:
      "count" [], "correct" and "cross_entropy" (in nats) by node [], and "ensemble_correct" [] of
      the averaged probabilities of the students among them.
    """
    label, mask = batch["label"], batch["mask"]
    logits = eval_logits(plan, state, preprocess(jax.random.key(0), batch), networks)
    sums = {
        "count": jnp.sum(mask.astype(jnp.int32)),
        "correct": {node: jnp.sum(hits(z, label) & mask) for node, z in logits.items()},
        "cross_entropy": {
            node: jnp.sum(losses.cross_entropy(z, label, where=mask)) for node, z in logits.items()
        },
    }
    students = [logits[node] for node in plan.graph.students if node in logits]
    if students:
        mean = sum(jax.nn.softmax(z.astype(jnp.float32)) for z in students)
        sums["ensemble_correct"] = jnp.sum(hits(jnp.asarray(mean), label) & mask)
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)


def heldout_step(
    plan: Plan,
    state: TrainState,
    batch: Mapping[str, jax.Array],
    *,
    preprocess: Images = as_floats,
    axis_name: str | None = None,
) -> Any:
    """What the method wants to know about a held-out batch, as sums; arguments as `eval_step`."""
    assert plan.memory is not None
    learners = {plan.network_of(node).name: None for node in plan.graph.learners}
    logits = eval_logits(plan, state, preprocess(jax.random.key(0), batch), tuple(learners))
    sums = plan.memory.heldout_sums(logits, batch["label"], batch["mask"])
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)


def eval_logits(
    plan: Plan, state: TrainState, images: jax.Array, networks: Sequence[str] | None = None
) -> dict[str, jax.Array]:
    """Logits [batch, classes] by node, with running statistics; images are normalised."""
    logits: dict[str, jax.Array] = {}
    for name in plan.networks if networks is None else networks:
        network, own = plan.networks[name], state.networks[name]
        variables = {"params": own.params["network"], **own.statistics["network"]}
        result, _ = run(network.module, variables, images, {}, False)
        nodes = zip(network.nodes, as_nodes(result), strict=True)
        logits |= {node: output.logits for node, output in nodes}
    return logits


def hits(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether the largest logit is the label's, [batch] bool."""
    return jnp.argmax(logits, axis=-1) == labels
