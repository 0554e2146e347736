"""One evaluation of networks: pure functions for every method, as sums over a batch."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from afd_jax import losses
from afd_jax.engine.plan import Plan
from afd_jax.engine.state import TrainState
from afd_jax.errors import SettingError
from afd_jax.networks.functional import run
from afd_jax.networks.outputs import Outputs, as_nodes

Images = Callable[[jax.Array, Mapping[str, jax.Array]], jax.Array]
"""(rng, batch) to float images [batch, height, width, channels]."""


def as_floats(rng: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
    """The default preprocessing: images as they are, but uint8 as fractions of 255.

    Raises:
      SettingError: for other integers, of which nobody knows the range.
    """
    images = batch["image"]
    if images.dtype == jnp.uint8:
        return images / jnp.float32(255)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        remedy = "must be uint8, from 0 to 255, or floating-point numbers"
        raise SettingError("batch.image", str(images.dtype), remedy)
    return images


def eval_step(
    plan: Plan,
    state: TrainState,
    batch: Mapping[str, jax.Array],
    *,
    networks: Sequence[str] | None = None,
    divergences: bool = False,
    preprocess: Images = as_floats,
    axis_name: str | None = None,
) -> dict[str, Any]:
    """Sums over one batch with running statistics; add them up over the set, then divide.

    Args:
      plan: of the run; static.
      state: of the run.
      batch: as in `train_step`; "mask" [batch] is False for padding.
      networks: which to evaluate; all if None.
      divergences: also measure how far nodes are from their sources, which are all evaluated.
      preprocess: normalisation; its key is a constant.
      axis_name: the device axis, inside pmap or shard_map.

    Returns:
      "count" [], "correct" and "cross_entropy" (in nats) by node [], "ensemble_correct" [] of the
      averaged probabilities of the students among them and "twin_ensemble_correct" [] of the
      twins'; "divergence" [] by node that has sources, the mean over these of
      KL(softmax(source) || softmax(own)) in nats; "similarity" of the last maps by pair of
      students, and of twins, see `_similarity`.
    """
    label, mask = batch["label"], batch["mask"]
    outputs = eval_outputs(plan, state, preprocess(jax.random.key(0), batch), networks)
    logits = {node: output.logits for node, output in outputs.items()}
    sums: dict[str, Any] = {
        "count": jnp.sum(mask.astype(jnp.int32)),
        "correct": {node: jnp.sum(hits(z, label) & mask) for node, z in logits.items()},
        "cross_entropy": {
            node: jnp.sum(losses.cross_entropy(z, label, where=mask)) for node, z in logits.items()
        },
    }
    if divergences:
        sums["divergence"] = {
            node: sum(_divergence(z, logits[s], mask) for s in sources) / len(sources)
            for node, z in logits.items()
            if (sources := plan.graph.sources(node))
        }
    for role, name in (("student", "ensemble_correct"), ("twin", "twin_ensemble_correct")):
        alike = [node for node in plan.graph.with_role(role) if node in logits]
        if alike:
            mean = sum(jax.nn.softmax(logits[node].astype(jnp.float32)) for node in alike)
            sums[name] = jnp.sum(hits(jnp.asarray(mean), label) & mask)
        for pair in itertools.combinations(alike, 2):
            own, other = (outputs[node].features for node in pair)
            similarity = sums.setdefault("similarity", {})
            similarity[pair] = _similarity(own, other, mask, axis_name)
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)


def _divergence(own: jax.Array, source: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sum(losses.distillation_kl(own, source, where=mask))


def _similarity(
    own: jax.Array, other: jax.Array, mask: jax.Array, axis_name: str | None
) -> dict[str, jax.Array]:
    """Sums over a batch of what two maps have in common.

    Args:
      own: [batch, height, width, channels].
      other: the other's, of any shape.
      mask: [batch].
      axis_name: the device axis, inside pmap or shard_map.

    Returns:
      "hsic" [3] of both, of the first and of the second: linear HSIC of the whole batch, over all
      devices, times its examples, so that a small batch counts less. For maps of one shape also
      "l1", "l2" and "cosine" [], sums over the batch of the mean absolute and squared difference
      and of the cosine.
    """
    alike, sums = own.shape == other.shape, {}
    own, other = (x.reshape(len(x), -1).astype(jnp.float32) for x in (own, other))
    if alike:
        sums["l1"] = jnp.sum(losses.l1_alignment(own, other, where=mask))
        sums["l2"] = jnp.sum(losses.l2_alignment(own, other, where=mask))
        distance = losses.cosine_distance(own, other, where=mask)
        sums["cosine"] = jnp.sum(mask) - jnp.sum(distance)
    if axis_name is not None:  # HSIC is of pairs of examples, wherever they are
        everywhere = functools.partial(jax.lax.all_gather, axis_name=axis_name, tiled=True)
        own, other, mask = everywhere(own), everywhere(other), everywhere(mask)
    pairs = ((own, other), (own, own), (other, other))
    hsic = jnp.stack([losses.linear_hsic(a, b, where=mask) for a, b in pairs]) * jnp.sum(mask)
    sums["hsic"] = hsic if axis_name is None else hsic / jax.lax.axis_size(axis_name)
    return sums


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


def eval_outputs(
    plan: Plan, state: TrainState, images: jax.Array, networks: Sequence[str] | None = None
) -> dict[str, Outputs]:
    """What each node makes of normalised images, with running statistics."""
    outputs: dict[str, Outputs] = {}
    for name in plan.networks if networks is None else networks:
        network, own = plan.networks[name], state.networks[name]
        result, _ = run(network.module, own.variables, images, {}, False)
        outputs |= zip(network.nodes, as_nodes(result), strict=True)
    return outputs


def eval_logits(
    plan: Plan, state: TrainState, images: jax.Array, networks: Sequence[str] | None = None
) -> dict[str, jax.Array]:
    """Logits [batch, classes] by node, with running statistics; images are normalised."""
    outputs = eval_outputs(plan, state, images, networks)
    return {node: output.logits for node, output in outputs.items()}


def hits(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether the largest logit is the label's, [batch] bool."""
    return jnp.argmax(logits, axis=-1) == labels
