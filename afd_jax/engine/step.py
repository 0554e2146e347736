"""One update of all networks: a pure function for every method.

It holds no state and compiles nothing; `engine.devices` wraps it in jit, pmap or shard_map.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import optax

from afd_jax import losses
from afd_jax.engine.evaluate import Images, as_floats, hits
from afd_jax.engine.follow import follow
from afd_jax.engine.forward import (
    apply,
    bind,
    bind_all,
    head_statistics,
    mean_losses,
    terms_of,
)
from afd_jax.engine.plan import ByNode, Network, Plan
from afd_jax.engine.state import NetworkState, TrainState
from afd_jax.methods.batch import Batch
from afd_jax.methods.method import UPDATES

Metrics = dict[str, dict[str, jax.Array]]
Pull = Callable[[Any], Any]


def train_step(
    plan: Plan,
    state: TrainState,
    batch: Mapping[str, jax.Array],
    *,
    preprocess: Images = as_floats,
    axis_name: str | None = None,
    detailed: bool | jax.Array = True,
) -> tuple[TrainState, Metrics]:
    """One mini-batch: a forward pass, then the logit, feature and discriminator updates.

    All losses are taken at the same parameters, from one forward pass, and applied in that order
    (as AFD is described; Chung et al., ICML 2020). With `plan.second_forward` the networks run
    again after the logit update, and the feature and discriminator losses use the new maps.

    Args:
      plan: networks, method and optimizers; static.
      state: of the run; safe to donate.
      batch: images as `preprocess` takes them, "label" [batch], and "index" [batch], each example's
        number in the data set, where the method or the augmentation asks for it.
      preprocess: (rng, batch) to float images: augmentation and normalisation.
      axis_name: the device axis, inside pmap or shard_map; None elsewhere.
      detailed: measure terms apart, too; where it is a traced False, that costs no time and those
        metrics are 0.

    Returns:
      The new state, and per node a dict of scalars: "loss/<term>" (batch means, weighted as they
      are added up), "accuracy", "gradient_norm/<update>" (of the gradient of the parameters that it
      moves), "output_gradient_norm/<term>" (detailed; of one term's gradient at the network's
      outputs, which tells terms of one update apart), and the method's own metrics. What belongs to
      a network of several nodes stands at its first.
    """
    image_rng, network_rng = keys_of(state)
    if axis_name is not None:
        network_rng = jax.random.fold_in(network_rng, jax.lax.axis_index(axis_name))
    images = views(plan, preprocess, image_rng, batch)
    partners = partners_of(plan, state, preprocess, image_rng, batch)
    seen = plan.seen(batch, state.step, state.memory)
    reduce = _Reduce(axis_name)
    metrics: Metrics = {node: {} for node in plan.graph.names}

    states, logits = dict(state.networks), dict[str, jax.Array]()
    everyone = tuple(plan.networks.values())
    phases: list[tuple[tuple[str, ...], Sequence[Network]]] = [(UPDATES, everyone)]
    if plan.second_forward:
        # Only what the feature losses see: the others' statistics have had this batch already.
        ends = {end for edge in plan.graph.edges for end in edge}
        joined = [network for network in everyone if {*network.nodes} & ends]
        phases = [(("logit",), everyone), (("feature", "discriminator"), joined)]
    for updates, networks in phases:
        states, outputs = _phase(
            plan, updates, networks, states, images, network_rng, partners, seen, reduce,
            metrics, detailed,
        )  # fmt: skip
        logits = logits or {node: output.logits for node, output in outputs.items()}
    for node, z in logits.items():
        metrics[node]["accuracy"] = reduce.mean(hits(z, batch["label"]).astype(jnp.float32))
    memory = state.memory
    if plan.memory is not None and plan.memory.uses_examples:
        memory = plan.memory.after_step(memory, *reduce.whole((logits, seen.index)))
    states = follow(plan, states, state.step)
    return TrainState(state.step + 1, state.rng, states, memory), metrics


def keys_of(state: TrainState) -> tuple[jax.Array, jax.Array]:
    """The keys of this step: of augmentation, and of networks that draw random numbers."""
    rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    image_rng, network_rng = jax.random.split(rng)
    return image_rng, network_rng


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


def partners_of(
    plan: Plan, state: TrainState, preprocess: Images, rng: jax.Array, batch: Mapping[str, Any]
) -> ByNode:
    """What each student says of another image of the same class, where the batch has them.

    It runs as in training, with the statistics of those images, which are not kept.
    """
    if "partner_image" not in batch:
        return {}
    others = {**batch, "image": batch["partner_image"], "index": batch.get("partner")}
    images = preprocess(jax.random.fold_in(rng, 1), others)
    partners: ByNode = {}
    for name, network in plan.networks.items():
        if network.role == "student":
            own, rngs = state.networks[name], {"dropout": jax.random.fold_in(rng, 2)}
            partners |= apply(plan, network, own.params, own.statistics, images, rngs)[0]
    return partners


def _phase(
    plan: Plan,
    updates: Sequence[str],
    networks: Sequence[Network],
    states: dict[str, NetworkState],
    images: Mapping[str, jax.Array],
    rng: jax.Array,
    partners: ByNode,
    seen: Batch,
    reduce: "_Reduce",
    metrics: Metrics,
    detailed: bool | jax.Array,
) -> tuple[dict[str, NetworkState], ByNode]:
    """Runs networks once and takes the given updates, from the outputs of this one pass."""
    states, pulls = dict(states), dict[str, Pull]()
    outputs: ByNode = {}
    for n, network in enumerate(networks):
        rngs = {"dropout": jax.random.fold_in(rng, n)}
        states[network.name], own, pulls[network.name] = _forward(
            plan, network, states[network.name], images[network.name], rngs
        )
        outputs |= own
    losses_of = {
        network.name: _losses(plan, network, updates, states, outputs, partners, seen)
        for network in networks
        if {*network.optimizers} & {*updates}
    }
    for update in updates:
        for network in networks:
            if update in network.optimizers:
                terms, pull = losses_of[network.name], pulls[network.name]
                states[network.name] = _update(
                    update, network, states[network.name], terms, pull, reduce, metrics, detailed
                )
    for name, terms in losses_of.items():
        states[name] = terms.with_statistics(plan.networks[name], states[name], updates)
        for node, values in terms.metrics.items():
            metrics[node].update({key: reduce.mean(v) for key, v in values.items()})
    return states, outputs


def _forward(
    plan: Plan, network: Network, state: NetworkState, images: jax.Array, rngs: Any
) -> tuple[NetworkState, ByNode, Pull]:
    """Runs a network; `Pull` takes a gradient at its outputs back to its parameters."""

    def run(params: Any) -> tuple[ByNode, Any]:
        return apply(plan, network, params, state.statistics, images, rngs)

    outputs, pull, statistics = jax.vjp(run, state.params, has_aux=True)
    return dataclasses.replace(state, statistics=statistics), outputs, pull


@dataclasses.dataclass(frozen=True)
class _Losses:
    """The losses of one network's nodes, ready to be differentiated.

    Attributes:
      values: batch means by update, then by (node, name).
      pull: takes a factor for each of them to gradients at the network's own outputs and heads.
      metrics: by node, per example.
      heads: statistics of the heads after their calls.
    """

    values: dict[str, dict[tuple[str, str], jax.Array]]
    pull: Pull
    metrics: dict[str, dict[str, jax.Array]]
    heads: Any

    def gradient(self, update: str, term: tuple[str, str] | None = None) -> tuple[Any, Any]:
        """Of all losses of an update, or of one: at the outputs, and for the heads."""
        factors = {
            u: {
                key: jnp.full_like(value, u == update and term in (None, key))
                for key, value in own.items()
            }
            for u, own in self.values.items()
        }
        return self.pull(factors)

    def with_statistics(
        self, network: Network, state: NetworkState, updates: Sequence[str]
    ) -> NetworkState:
        """The state with the new statistics of the heads that these updates train."""
        heads = {node: dict(own) for node, own in state.statistics["heads"].items()}
        for node, own in heads.items():
            for name in own:
                masks = (network.trains.get(u, {}) for u in updates)
                if name != "transfer" and any(
                    mask and any(jax.tree.leaves(mask["heads"][node][name])) for mask in masks
                ):
                    own[name] = self.heads[node][name]
        return dataclasses.replace(state, statistics={**state.statistics, "heads": heads})


def _losses(
    plan: Plan,
    network: Network,
    updates: Sequence[str],
    states: Mapping[str, NetworkState],
    outputs: ByNode,
    partners: ByNode,
    seen: Batch,
) -> _Losses:
    """Differentiable by the network's own outputs and heads; all else is a constant."""
    own_state = states[network.name]

    def means(own: ByNode, params: Any) -> Any:
        heads = bind_all(plan, states)
        heads |= bind(network, params, own_state.statistics["heads"])
        terms = terms_of(plan, network, {**outputs, **own}, heads, partners, seen)
        values = {update: mean_losses(terms, update) for update in updates}
        logged = {node: each.metrics for node, each in terms.items()}
        return values, (logged, head_statistics({n: heads[n] for n in network.heads}))

    own = {node: outputs[node] for node in network.nodes}
    values, pull, (logged, statistics) = jax.vjp(
        means, own, own_state.params["heads"], has_aux=True
    )
    return _Losses(values, pull, logged, statistics)


def _update(
    update: str,
    network: Network,
    state: NetworkState,
    own: _Losses,
    pull: Pull,
    reduce: "_Reduce",
    metrics: Metrics,
    detailed: bool | jax.Array,
) -> NetworkState:
    """Steps one network by the losses of one update."""
    at_outputs, at_heads = own.gradient(update)
    if update == "discriminator":  # networks are constants to it
        gradient = jax.tree.map(jnp.zeros_like, state.params)
    else:
        (gradient,) = pull(at_outputs)
    gradient = {**gradient, "heads": jax.tree.map(jnp.add, gradient["heads"], at_heads)}
    gradient, norm = reduce.gradient(gradient, network.trains[update])
    optimizer = network.optimizers[update]
    steps, opt = optimizer.update(gradient, state.optimizers[update], state.params)
    metrics[network.nodes[0]][f"gradient_norm/{update}"] = norm
    terms = own.values[update]
    if update != "discriminator":
        squares = _measured(
            detailed, lambda: {key: _square(own.gradient(update, key)[0]) for key in terms}
        )
        for (node, name), square in squares.items():
            norm = reduce.norm_of_parts(square)
            metrics[node][f"output_gradient_norm/{name}"] = norm
    for (node, name), value in terms.items():
        metrics[node][f"loss/{name}"] = reduce.over_devices(value)
    return dataclasses.replace(
        state,
        params=optax.apply_updates(state.params, steps),
        optimizers={**state.optimizers, update: opt},
    )


def _measured(wanted: bool | jax.Array, measure: Callable[[], Any]) -> Any:
    """What `measure` gives, or zeros where it is not wanted."""
    if wanted is True:
        return measure()
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(measure))
    return zeros if wanted is False else jax.lax.cond(wanted, measure, lambda: zeros)


def _square(tree: Any) -> jax.Array:
    return jnp.square(optax.tree.norm(tree))


class _Reduce:
    """Averages over the batch and, inside pmap or shard_map, over devices."""

    def __init__(self, axis_name: str | None):
        self.axis_name = axis_name

    def over_devices(self, tree: Any) -> Any:
        return tree if self.axis_name is None else jax.lax.pmean(tree, self.axis_name)

    def gradient(self, tree: Any, moved: Any) -> tuple[Any, jax.Array]:
        """The mean over devices of what an update moves, zeros for the rest; and its norm.

        In one vector: many small arrays cost more.
        """
        leaves, treedef = jax.tree.flatten(tree)
        masks = jax.tree.leaves(moved)
        own = [leaf for leaf, mask in zip(leaves, masks, strict=True) if mask]
        flat, unravel = jax.flatten_util.ravel_pytree(own)
        if self.axis_name is not None:
            flat = self.over_devices(flat)
            own = unravel(flat)
        given = iter(own)
        pairs = zip(leaves, masks, strict=True)
        whole = [next(given) if mask else jnp.zeros_like(leaf) for leaf, mask in pairs]
        return jax.tree.unflatten(treedef, whole), jnp.linalg.norm(flat)

    def mean(self, values: jax.Array) -> jax.Array:
        return self.over_devices(losses.mean(values))

    def whole(self, tree: Any) -> Any:
        """All devices' examples, along axis 0."""
        if self.axis_name is None:
            return tree
        return jax.lax.all_gather(tree, self.axis_name, tiled=True)

    def norm_of_parts(self, square: jax.Array) -> jax.Array:
        """Norm of a gradient with one part per example, each device holding its own examples."""
        square = self.over_devices(square)
        size = 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)
        return jnp.sqrt(square / size)
