"""One update of all networks: a pure function for every method.

It holds no state and compiles nothing; `afd_jax.engine.devices` wraps it in jit, pmap or shard_map.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from afd_jax import losses
from afd_jax.engine.cohort import Cohort
from afd_jax.engine.evaluate import Batch, hits, images_as_they_are
from afd_jax.engine.forward import apply_peer
from afd_jax.networks.heads import BoundHead
from afd_jax.methods.method import PerExample, Terms
from afd_jax.networks.outputs import Outputs
from afd_jax.engine.state import PeerState, TrainState

Metrics = dict[str, jax.Array]
Pull = Callable[[tuple[Outputs, ...]], Any]


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
      terms of one update apart), and the method's own metrics. What belongs to a network of several
      nodes stands at its first.
    """
    rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    image_rng, network_rng = jax.random.split(rng)
    if axis_name is not None:
        network_rng = jax.random.fold_in(network_rng, jax.lax.axis_index(axis_name))
    images = views(cohort, preprocess, image_rng, batch)
    reduce = _Reduce(axis_name)

    forward = [_forward(cohort, p, s, images[p], network_rng) for p, s in enumerate(state.peers)]
    peers, by_peer, pulls = (list(part) for part in zip(*forward, strict=True))
    outputs = [output for nodes in by_peer for output in nodes]
    metrics = [
        {"accuracy": reduce.mean(hits(o.logits, batch["label"]).astype(jnp.float32))}
        for o in outputs
    ]

    context = cohort.context(batch, state)

    def logit_terms(k: int, outputs: Sequence[Outputs], heads: Any) -> Terms:
        seen = dataclasses.replace(context, discriminators=heads)
        return cohort.method.logit_terms(k, outputs, seen)

    peers = _update_networks("logit", cohort, peers, outputs, pulls, logit_terms, reduce, metrics)
    if cohort.method.second_forward:
        # Only what the feature losses see: the others' statistics have had this batch already.
        trains_features = any("feature" in peer.optimizers for peer in cohort.peers)
        joined = cohort.method.graph.joined() if trains_features else ()
        for p in range(len(peers)):
            nodes = cohort.nodes_of(p)
            if {*nodes} & {*joined}:
                peers[p], again, pulls[p] = _forward(cohort, p, peers[p], images[p], network_rng)
                outputs[nodes.start : nodes.stop] = again
    feature_terms = cohort.method.feature_terms
    peers = _update_networks(
        "feature", cohort, peers, outputs, pulls, feature_terms, reduce, metrics
    )
    peers = _update_discriminators(cohort, peers, outputs, reduce, metrics)
    peers = follow(cohort, peers, state.step)
    memory = state.memory
    if cohort.method.uses_examples:
        logits, index = reduce.whole(([o.logits for o in outputs], batch["index"]))
        memory = cohort.method.remember(memory, logits, index)
    new = TrainState(state.step + 1, state.rng, tuple(peers), memory)
    return new, tuple(metrics)


def views(
    cohort: Cohort,
    preprocess: Callable[[jax.Array, Batch], jax.Array],
    rng: jax.Array,
    batch: Batch,
) -> list[jax.Array]:
    """What each network sees of a batch: all the same, or each its own; a twin as its original.

    A network of several views gets them beside each other, on axis 1. A follower may see, for each
    image, another one of the same class: "partner_image", and "partner" for its index.
    """
    follower = cohort.method.follower
    if follower and follower.sees_partners:
        partners = {**batch, "image": batch["partner_image"], "index": batch["partner"]}
        own = preprocess(rng, batch)
        others = preprocess(jax.random.fold_in(rng, 1), partners)
        return [own if peer.follows is None else others for peer in cohort.peers]
    if not cohort.method.own_augmentation:
        return [preprocess(rng, batch)] * len(cohort.peers)

    def augmented(start: int, view: int) -> jax.Array:
        return preprocess(jax.random.fold_in(jax.random.fold_in(rng, start), view), batch)

    return [
        augmented(peer.start, 0)
        if peer.views == 1
        else jnp.stack([augmented(peer.start, view) for view in range(peer.views)], axis=1)
        for peer in cohort.peers
    ]


class _Reduce:
    """Averages over the batch and, inside pmap or shard_map, over devices."""

    def __init__(self, axis_name: str | None):
        self.axis_name = axis_name

    def over_devices(self, tree: Any) -> Any:
        return tree if self.axis_name is None else jax.lax.pmean(tree, self.axis_name)

    def gradient(self, tree: Any) -> tuple[Any, jax.Array]:
        """As `over_devices`, with the norm; of one vector, as many small arrays cost more."""
        flat, unravel = jax.flatten_util.ravel_pytree(tree)
        if self.axis_name is None:
            return tree, jnp.linalg.norm(flat)
        flat = self.over_devices(flat)
        return unravel(flat), jnp.linalg.norm(flat)

    def mean(self, values: jax.Array) -> jax.Array:
        return self.over_devices(losses.mean(values))

    def whole(self, tree: Any) -> Any:
        """All devices' examples, along axis 0."""
        if self.axis_name is None:
            return tree
        return jax.lax.all_gather(tree, self.axis_name, tiled=True)

    def norm_at_outputs(self, tree: Any) -> jax.Array:
        """Norm of a gradient with one part per example, each device holding its own examples."""
        square = self.over_devices(jnp.square(optax.tree.norm(tree)))
        size = 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)
        return jnp.sqrt(square / size)


def _forward(
    cohort: Cohort, p: int, peer: PeerState, images: jax.Array, rng: jax.Array
) -> tuple[PeerState, tuple[Outputs, ...], Pull]:
    """Runs a network in training mode; `Pull` takes a gradient back to its parameters."""
    rngs = {"dropout": jax.random.fold_in(rng, p)}

    def run(params: Any) -> tuple[tuple[Outputs, ...], Any]:
        return apply_peer(cohort, p, params, peer.statistics, images, rngs)

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
    for p, peer in enumerate(peers):
        optimizer = cohort.peers[p].optimizers.get(update)
        if optimizer is None:
            updated.append(peer)
            continue
        nodes = cohort.nodes_of(p)

        def means(
            own: tuple[Outputs, ...], p: int = p, nodes: range = nodes
        ) -> tuple[dict[tuple[int, str], jax.Array], list[PerExample]]:
            everyone = [*outputs[: nodes.start], *own, *outputs[nodes.stop :]]
            heads = _discriminators(cohort, peers, p)
            results = [terms_of(k, everyone, heads) for k in nodes]
            return {
                (k, name): losses.mean(values)
                for k, (terms, _) in zip(nodes, results, strict=True)
                for name, values in terms.items()
            }, [logged for _, logged in results]

        own = tuple(outputs[nodes.start : nodes.stop])
        values, pull_term, logged = jax.vjp(means, own, has_aux=True)
        total = jax.tree.map(jnp.zeros_like, own)
        for k, name in values:
            one_hot = {n: jnp.full_like(v, n == (k, name)) for n, v in values.items()}
            (gradient,) = pull_term(one_hot)
            metrics[k][f"output_gradient_norm/{name}"] = reduce.norm_at_outputs(gradient)
            total = jax.tree.map(jnp.add, total, gradient)
        (gradient,), norm = reduce.gradient(pulls[p](total))
        steps, opt = optimizer.update(gradient, peer.optimizers[update], peer.params)
        updated.append(
            dataclasses.replace(
                peer,
                params=optax.apply_updates(peer.params, steps),
                optimizers={**peer.optimizers, update: opt},
            )
        )
        metrics[nodes.start][f"gradient_norm/{update}"] = norm
        for k, name in values:
            metrics[k][f"loss/{name}"] = reduce.over_devices(values[k, name])
        for k, per_example in zip(nodes, logged, strict=True):
            metrics[k].update({name: reduce.mean(v) for name, v in per_example.items()})
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
    for p, peer in enumerate(peers):
        optimizer = cohort.peers[p].optimizers.get("discriminator")
        if optimizer is None:
            updated.append(peer)
            continue
        (k,) = cohort.nodes_of(p)

        def total(params: Any, p: int = p, k: int = k) -> tuple[jax.Array, Any]:
            heads = _discriminators(cohort, peers, p, params)
            terms, logged = cohort.method.discriminator_terms(k, outputs, heads)
            values = {name: losses.mean(v) for name, v in terms.items()}
            variables = {name: head.variables for name, head in heads.items()}
            return jnp.asarray(sum(values.values())), (values, logged, variables)

        params = {name: v["params"] for name, v in peer.discriminators.items()}
        gradient, (values, logged, variables) = jax.grad(total, has_aux=True)(params)
        gradient, norm = reduce.gradient(gradient)
        steps, opt = optimizer.update(gradient, peer.optimizers["discriminator"], params)
        params = optax.apply_updates(params, steps)
        updated.append(
            dataclasses.replace(
                peer,
                discriminators={n: {**v, "params": params[n]} for n, v in variables.items()},
                optimizers={**peer.optimizers, "discriminator": opt},
            )
        )
        metrics[k]["gradient_norm/discriminator"] = norm
        for name, value in values.items():
            metrics[k][f"loss/{name}"] = reduce.over_devices(value)
        metrics[k].update({name: reduce.mean(v) for name, v in logged.items()})
    return updated


def _discriminators(
    cohort: Cohort, peers: Sequence[PeerState], p: int, params: Any = None
) -> dict[str, BoundHead]:
    heads = {}
    for name, module in cohort.peers[p].discriminators.items():
        variables = peers[p].discriminators[name]
        if params is not None:
            variables = {**variables, "params": params[name]}
        heads[name] = BoundHead(module, variables)
    return heads


def follow(cohort: Cohort, peers: Sequence[PeerState], step: jax.Array) -> list[PeerState]:
    """Moves followers towards their networks, which have just been updated.

    The decay of an average is min(1 - 1/(t+1), d) after update t, so that early averages are plain
    means (Tarvainen and Valpola, "Mean teachers are better role models", 2017).
    """
    follower = cohort.method.follower
    if follower is None:
        return list(peers)
    updates, steps_per_epoch = step + 1, cohort.steps_per_epoch or 1

    def average(old: jax.Array, new: jax.Array) -> jax.Array:
        t = jnp.asarray(updates, float)
        decay = jnp.minimum(1 - 1 / (t + 1), follower.decay or 0.0)
        return (decay * old + (1 - decay) * new).astype(old.dtype)

    def latest(old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(updates % steps_per_epoch == 0, new, old)

    def moved(peer: PeerState, leader: PeerState) -> PeerState:
        change = latest if follower.decay is None else average
        params = jax.tree.map(change, peer.params["network"], leader.params["network"])
        new = dataclasses.replace(peer, params={**peer.params, "network": params})
        if not follower.evaluates:  # it has statistics of its own
            return new
        statistics = jax.tree.map(change, peer.statistics["network"], leader.statistics["network"])
        return dataclasses.replace(new, statistics={**peer.statistics, "network": statistics})

    return [
        peer if (leader := cohort.peers[p].follows) is None else moved(peer, peers[leader])
        for p, peer in enumerate(peers)
    ]
