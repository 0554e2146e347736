"""One update of all networks, and one evaluation: pure functions for every method.

They hold no state and compile nothing; `afd_jax.parallel` wraps them in jit, pmap or shard_map.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from afd_jax import losses
from afd_jax.cohort import Cohort, apply_peer, as_outputs
from afd_jax.heads import BoundHead
from afd_jax.methods.base import PerExample, Terms
from afd_jax.networks.outputs import Outputs
from afd_jax.state import PeerState, TrainState

Batch = Mapping[str, jax.Array]
"""{"image": [batch, h, w, c], "label": [batch], "index": [batch]}, "mask" [batch] in evaluation."""

Metrics = dict[str, jax.Array]
Pull = Callable[[Outputs], Any]


def images_as_they_are(rng: jax.Array, batch: Batch) -> jax.Array:
    """The default preprocessing: none."""
    return batch["image"]


def train_step(
    cohort: Cohort,
    state: TrainState,
    batch: Batch,
    *,
    preprocess: Callable[[jax.Array, Batch], jax.Array] = images_as_they_are,
    axis_name: str | None = None,
) -> tuple[TrainState, tuple[Metrics, ...]]:
    """One mini-batch: a forward pass, then the logit, feature and discriminator updates.

    All losses are taken at the same parameters, from one forward pass, and applied in that order
    (as AFD is described; Chung et al., ICML 2020). With `cohort.method.second_forward` the networks
    run again after the logit update, and the feature and discriminator losses use the new maps.

    Args:
      cohort: networks, method and optimizers; static.
      state: of the run; safe to donate.
      batch: images as `preprocess` takes them, integer labels, and each example's index in the
        data set, which makes its augmentation independent of the device it falls on.
      preprocess: (rng, batch) to float images: augmentation and normalisation.
      axis_name: the device axis, inside pmap or shard_map; None elsewhere.

    Returns:
      The new state, and per node a dict of scalars: "loss/<term>" (batch means, weighted as they
      are added up), "accuracy", "gradient_norm/<update>" (of the parameters' gradient),
      "output_gradient_norm/<term>" (of one term's gradient at the network's outputs, which tells
      terms of one update apart), and the method's own metrics.
    """
    rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    image_rng, network_rng = jax.random.split(rng)
    if axis_name is not None:
        network_rng = jax.random.fold_in(network_rng, jax.lax.axis_index(axis_name))
    images = views(cohort, preprocess, image_rng, batch)
    reduce = _Reduce(axis_name)

    forward = [_forward(cohort, k, p, images[k], network_rng) for k, p in enumerate(state.peers)]
    peers, outputs, pulls = (list(part) for part in zip(*forward, strict=True))
    metrics = [
        {"accuracy": reduce.mean(_hits(o.logits, batch["label"]).astype(jnp.float32))}
        for o in outputs
    ]

    def logit_terms(k: int, outputs: Sequence[Outputs], heads: Any) -> Terms:
        return cohort.method.logit_terms(k, outputs, batch)

    peers = _update_networks("logit", cohort, peers, outputs, pulls, logit_terms, reduce, metrics)
    if cohort.method.second_forward:
        # Only what the feature losses see: the others' statistics have had this batch already.
        trains_features = any("feature" in peer.optimizers for peer in cohort.peers)
        again = cohort.method.graph.joined() if trains_features else ()
        for k in again:
            peers[k], outputs[k], pulls[k] = _forward(cohort, k, peers[k], images[k], network_rng)
    feature_terms = cohort.method.feature_terms
    peers = _update_networks(
        "feature", cohort, peers, outputs, pulls, feature_terms, reduce, metrics
    )
    peers = _update_discriminators(cohort, peers, outputs, reduce, metrics)
    new = TrainState(step=state.step + 1, rng=state.rng, peers=tuple(peers))
    return new, tuple(metrics)


def views(
    cohort: Cohort,
    preprocess: Callable[[jax.Array, Batch], jax.Array],
    rng: jax.Array,
    batch: Batch,
) -> list[jax.Array]:
    """What each network sees of a batch: all the same, or each its own; a twin as its original."""
    if not cohort.method.own_augmentation:
        return [preprocess(rng, batch)] * len(cohort.peers)
    return [preprocess(jax.random.fold_in(rng, peer.start), batch) for peer in cohort.peers]


def eval_step(
    cohort: Cohort,
    state: TrainState,
    batch: Batch,
    *,
    preprocess: Callable[[jax.Array, Batch], jax.Array] = images_as_they_are,
    axis_name: str | None = None,
) -> Metrics:
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
    images = preprocess(jax.random.key(0), batch)
    label, mask = batch["label"], batch["mask"]
    logits = [
        as_outputs(
            peer.network.apply(
                {"params": peer_state.params["network"], **peer_state.statistics["network"]},
                images,
                train=False,
            )
        ).logits
        for peer, peer_state in zip(cohort.peers, state.peers, strict=True)
    ]
    probabilities = [jax.nn.softmax(z.astype(jnp.float32)) for z in logits[: cohort.members]]
    sums = {
        "count": jnp.sum(mask.astype(jnp.int32)),
        "correct": jnp.stack([jnp.sum(_hits(z, label) & mask) for z in logits]),
        "cross_entropy": jnp.stack(
            [jnp.sum(losses.cross_entropy(z, label, where=mask)) for z in logits]
        ),
        "ensemble_correct": jnp.sum(_hits(jnp.asarray(sum(probabilities)), label) & mask),
    }
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)


class _Reduce:
    """Averages over the batch and, inside pmap or shard_map, over devices."""

    def __init__(self, axis_name: str | None):
        self.axis_name = axis_name

    def over_devices(self, tree: Any) -> Any:
        return tree if self.axis_name is None else jax.lax.pmean(tree, self.axis_name)

    def mean(self, values: jax.Array) -> jax.Array:
        return self.over_devices(losses.mean(values))

    def norm_at_outputs(self, tree: Any) -> jax.Array:
        """Norm of a gradient with one part per example, each device holding its own examples."""
        square = self.over_devices(jnp.square(optax.tree.norm(tree)))
        size = 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)
        return jnp.sqrt(square / size)


def _forward(
    cohort: Cohort, k: int, peer: PeerState, images: jax.Array, rng: jax.Array
) -> tuple[PeerState, Outputs, Pull]:
    """Runs network k in training mode; `Pull` takes a gradient back to its parameters."""
    rngs = {"dropout": jax.random.fold_in(rng, k)}

    def run(params: Any) -> tuple[Outputs, Any]:
        return apply_peer(cohort, k, params, peer.statistics, images, rngs)

    outputs, pull, statistics = jax.vjp(run, peer.params, has_aux=True)
    return dataclasses.replace(peer, statistics=statistics), outputs, pull


def _update_networks(
    update: str,
    cohort: Cohort,
    peers: Sequence[PeerState],
    outputs: Sequence[Outputs],
    pulls: Sequence[Pull],
    terms_of: Callable[..., Terms],
    reduce: _Reduce,
    metrics: Sequence[Metrics],
) -> list[PeerState]:
    """Steps the networks by one kind of loss; each is differentiated by its own outputs only."""
    updated = []
    for k, peer in enumerate(peers):
        optimizer = cohort.peers[k].optimizers.get(update)
        if optimizer is None:
            updated.append(peer)
            continue

        def means(own: Outputs, k: int = k) -> tuple[Metrics, PerExample]:
            everyone = [own if j == k else other for j, other in enumerate(outputs)]
            terms, logged = terms_of(k, everyone, _discriminators(cohort, peers, k))
            return {name: losses.mean(values) for name, values in terms.items()}, logged

        values, pull_term, logged = jax.vjp(means, outputs[k], has_aux=True)
        total = jax.tree.map(jnp.zeros_like, outputs[k])
        for name in values:
            one_hot = {n: jnp.full_like(v, n == name) for n, v in values.items()}
            (gradient,) = pull_term(one_hot)
            metrics[k][f"output_gradient_norm/{name}"] = reduce.norm_at_outputs(gradient)
            total = jax.tree.map(jnp.add, total, gradient)
        (gradient,) = reduce.over_devices(pulls[k](total))
        steps, opt = optimizer.update(gradient, peer.optimizers[update], peer.params)
        updated.append(
            dataclasses.replace(
                peer,
                params=optax.apply_updates(peer.params, steps),
                optimizers={**peer.optimizers, update: opt},
            )
        )
        _log(metrics[k], update, values, logged, gradient, reduce)
    return updated


def _update_discriminators(
    cohort: Cohort,
    peers: Sequence[PeerState],
    outputs: Sequence[Outputs],
    reduce: _Reduce,
    metrics: Sequence[Metrics],
) -> list[PeerState]:
    """Steps the discriminators; all maps are constants."""
    updated = []
    for k, peer in enumerate(peers):
        optimizer = cohort.peers[k].optimizers.get("discriminator")
        if optimizer is None:
            updated.append(peer)
            continue

        def total(params: Any, k: int = k) -> tuple[jax.Array, Any]:
            heads = _discriminators(cohort, peers, k, params)
            terms, logged = cohort.method.discriminator_terms(k, outputs, heads)
            values = {name: losses.mean(v) for name, v in terms.items()}
            variables = {name: head.variables for name, head in heads.items()}
            return jnp.asarray(sum(values.values())), (values, logged, variables)

        params = {name: v["params"] for name, v in peer.discriminators.items()}
        gradient, (values, logged, variables) = jax.grad(total, has_aux=True)(params)
        gradient = reduce.over_devices(gradient)
        steps, opt = optimizer.update(gradient, peer.optimizers["discriminator"], params)
        params = optax.apply_updates(params, steps)
        updated.append(
            dataclasses.replace(
                peer,
                discriminators={n: {**v, "params": params[n]} for n, v in variables.items()},
                optimizers={**peer.optimizers, "discriminator": opt},
            )
        )
        _log(metrics[k], "discriminator", values, logged, gradient, reduce)
    return updated


def _discriminators(
    cohort: Cohort, peers: Sequence[PeerState], k: int, params: Any = None
) -> dict[str, BoundHead]:
    heads = {}
    for name, module in cohort.peers[k].discriminators.items():
        variables = peers[k].discriminators[name]
        if params is not None:
            variables = {**variables, "params": params[name]}
        heads[name] = BoundHead(module, variables)
    return heads


def _log(
    metrics: Metrics,
    update: str,
    values: Mapping[str, jax.Array],
    logged: PerExample,
    gradient: Any,
    reduce: _Reduce,
) -> None:
    metrics[f"gradient_norm/{update}"] = optax.tree.norm(gradient)
    for name, value in values.items():
        metrics[f"loss/{name}"] = reduce.over_devices(value)
    for name, per_example in logged.items():
        metrics[name] = reduce.mean(per_example)


def _hits(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.argmax(logits, axis=-1) == labels
