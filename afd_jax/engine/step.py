"""One update of all networks: a pure function for every method.

It holds no state and compiles nothing; `engine.devices` wraps it in jit, pmap or shard_map.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

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
from afd_jax.engine.inputs import Shares, keys_of, loss_key, mixed, partners_of, views
from afd_jax.engine.plan import ByNode, Network, Plan
from afd_jax.engine.reduce import Reduce
from afd_jax.engine.state import NetworkState, TrainState
from afd_jax.engine.trains import held
from afd_jax.errors import SettingError
from afd_jax.methods.batch import Batch
from afd_jax.methods.method import UPDATES, any_paused

Metrics = dict[str, dict[str, jax.Array]]
Pull = Callable[[Any], Any]


def train_step(
    plan: Plan,
    state: TrainState,
    batch: Mapping[str, jax.Array],
    *,
    preprocess: Images = as_floats,
    mix: Shares | None = None,
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
        number in the data set, where the method or the augmentation asks for it; perhaps
        "soft_label" [batch, classes], probabilities that losses take in place of the labels.
      preprocess: (rng, batch) to float images: augmentation and normalisation.
      mix: of (rng, height, width) the share of each pixel that is an image's own, [height, width];
        the rest is of the image opposite in the batch, and their labels are shared likewise. Drawn
        once for all images and networks. None: images stay whole.
      axis_name: the device axis, inside pmap or shard_map; None elsewhere.
      detailed: measure terms apart, too; where it is a traced False, that costs no time and those
        metrics are 0.

    Raises:
      SettingError: for a mixture that the method cannot take.

    Returns:
      The new state, and per node a dict of scalars: "loss/<term>" (batch means, weighted as they
      are added up), "accuracy", "gradient_norm/<update>" (of the gradient of the parameters that it
      moves), "output_gradient_norm/<term>" (detailed; of one term's gradient at the network's
      outputs, which tells terms of one update apart), and the method's own metrics. What belongs to
      a network of several nodes stands at its first.
    """
    if mix is not None and plan.method.whole_images:
        remedy = f"{type(plan.method).__name__} {plan.method.whole_images}; leave it None"
        raise SettingError("mix", mix, remedy)
    image_rng, network_rng = keys_of(state)
    if axis_name is not None:
        network_rng = jax.random.fold_in(network_rng, jax.lax.axis_index(axis_name))
    images, reduce = views(plan, preprocess, image_rng, batch), Reduce(axis_name)
    if mix is not None:
        share = mix(jax.random.fold_in(image_rng, 2), *plan.image_shape[:2])
        images, batch = mixed(plan, share, images, batch, reduce)
    given = _Given(
        plan=plan,
        images=images,
        rng=network_rng,
        partners=partners_of(plan, state, preprocess, (image_rng, network_rng), batch),
        seen=plan.seen(batch, state.step, state.memory, reduce, loss_key(image_rng)),
        reduce=reduce,
        detailed=detailed,
    )
    metrics: Metrics = {node: {} for node in plan.graph.names}

    states, logits = dict(state.networks), dict[str, jax.Array]()
    kept: dict[str, Any] = {}
    everyone = tuple(plan.networks.values())
    phases: list[tuple[tuple[str, ...], Sequence[Network]]] = [(UPDATES, everyone)]
    if plan.second_forward:
        # Only what these losses see: the others' statistics have had this batch already.
        later = ("feature", "discriminator")
        movers = [n for n in everyone if {*later} & {*n.optimizers}]
        nodes = {node for network in movers for node in network.nodes}
        nodes.update(*(plan.graph.sources(node) for node in nodes))
        again = [network for network in everyone if {*network.nodes} & nodes]
        phases = [(("logit",), everyone), (later, again)]
    for updates, networks in phases:
        states, outputs, remembered = _phase(given, updates, networks, states, metrics)
        kept = kept or remembered
        logits = logits or {node: output.logits for node, output in outputs.items()}
    for node, z in logits.items():
        metrics[node]["accuracy"] = given.reduce.mean(hits(z, batch["label"]).astype(jnp.float32))
    memory = state.memory
    if plan.memory is not None and plan.memory.uses_examples:
        memory = plan.memory.after_step(memory, *given.reduce.whole((kept, given.seen.index)))
    states = follow(plan, states, state.step)
    return TrainState(state.step + 1, state.rng, states, memory), metrics


@dataclasses.dataclass(frozen=True)
class _Given:
    """What stays the same within a step.

    Attributes:
      plan: of the run.
      images: that each network sees, by name.
      rng: of networks that draw random numbers.
      partners: as from `partners_of`.
      seen: what losses look at.
      reduce: over devices.
      detailed: as in `train_step`.
    """

    plan: Plan
    images: Mapping[str, jax.Array]
    rng: jax.Array
    partners: ByNode
    seen: Batch
    reduce: Reduce
    detailed: bool | jax.Array


def _phase(
    given: _Given,
    updates: Sequence[str],
    networks: Sequence[Network],
    states: Mapping[str, NetworkState],
    metrics: Metrics,
) -> tuple[dict[str, NetworkState], ByNode, dict[str, Any]]:
    """Runs networks once and takes the given updates, from the outputs of this one pass.

    Returns:
      New states, the outputs, and what the memory is to keep, by node.
    """
    states, pulls = dict(states), dict[str, Pull]()
    outputs: ByNode = {}
    order = [*given.plan.networks]  # a second pass draws what the first one drew
    for network in networks:
        rngs = {"dropout": jax.random.fold_in(given.rng, order.index(network.name))}
        states[network.name], own, pulls[network.name] = _forward(
            given, network, states[network.name], rngs
        )
        outputs |= own
    before = dict(states)  # all losses are taken at the same parameters
    measured: set[str] = set()
    remembered: dict[str, Any] = {}
    for update in updates:
        for network in networks:
            if update in network.optimizers:
                name = network.name
                losses = _losses(given, update, network, before, outputs)
                if name not in measured:  # the method's metrics are the same for all updates
                    measured.add(name)
                    remembered |= losses.remembered
                    for node, values in losses.metrics.items():
                        means = {key: given.reduce.mean(v) for key, v in values.items()}
                        metrics[node].update(means)
                states[name] = _update(
                    given, update, network, states[name], losses, pulls[name], metrics
                )
    return states, outputs, remembered


def _forward(
    given: _Given, network: Network, state: NetworkState, rngs: Mapping[str, jax.Array]
) -> tuple[NetworkState, ByNode, Pull]:
    """Runs a network; `Pull` takes a gradient at its outputs back to its parameters."""

    def run(params: Any) -> tuple[ByNode, Any]:
        images = given.images[network.name]
        return apply(given.plan, network, params, state.statistics, images, rngs)

    outputs, pull, statistics = jax.vjp(run, state.params, has_aux=True)
    return dataclasses.replace(state, statistics=statistics), outputs, pull


@dataclasses.dataclass(frozen=True)
class _Losses:
    """The losses of one network's nodes for one update, ready to be differentiated.

    Attributes:
      values: batch means by (node, name).
      pull: takes a factor for each of them to gradients at the network's own outputs and heads.
      metrics: by node, per example.
      remembered: likewise, for the memory.
      statistics: of the heads after their calls.
      paused: whether the network takes no step; None: it always does.
    """

    values: dict[tuple[str, str], jax.Array]
    pull: Pull
    metrics: dict[str, dict[str, jax.Array]]
    remembered: dict[str, dict[str, jax.Array]]
    statistics: Any
    paused: jax.Array | None

    def gradient(self, term: tuple[str, str] | None = None) -> tuple[Any, Any]:
        """Of the sum, or of one of them: at the outputs, and for the heads."""
        keys = self.values.items()
        return self.pull({key: jnp.full_like(v, term in (None, key)) for key, v in keys})


def _losses(
    given: _Given,
    update: str,
    network: Network,
    states: Mapping[str, NetworkState],
    outputs: ByNode,
) -> _Losses:
    """Differentiable by the network's own outputs and heads; all else is a constant."""
    state = states[network.name]

    def means(own: ByNode, params: Any) -> Any:
        heads = bind_all(given.plan, states)
        heads |= bind(network, params, state.statistics["heads"])
        everybody = {**outputs, **own}
        variables = {name: own.variables for name, own in states.items()}
        aside = heads, variables, given.partners
        terms = terms_of(given.plan, network, everybody, *aside, given.seen)
        logged = {node: each.metrics for node, each in terms.items()}
        remembered = {node: each.remembered for node, each in terms.items()}
        statistics = head_statistics({node: heads[node] for node in network.heads})
        paused = any_paused(terms.values())
        return mean_losses(terms, update), (logged, remembered, statistics, paused)

    own = {node: outputs[node] for node in network.nodes}
    values, pull, aside = jax.vjp(means, own, state.params["heads"], has_aux=True)
    return _Losses(values, pull, *aside)


def _update(
    given: _Given,
    update: str,
    network: Network,
    state: NetworkState,
    losses: _Losses,
    pull: Pull,
    metrics: Metrics,
) -> NetworkState:
    """Steps one network by the losses of one update."""
    at_outputs, at_heads = losses.gradient()
    if update == "discriminator":  # networks are constants to it
        gradient = jax.tree.map(jnp.zeros_like, state.params)
    else:
        (gradient,) = pull(at_outputs)
    gradient = {**gradient, "heads": jax.tree.map(jnp.add, gradient["heads"], at_heads)}
    gradient, norm = given.reduce.gradient(gradient, network.trains[update])
    optimizer = network.optimizers[update]
    steps, opt = optimizer.update(gradient, state.optimizers[update], state.params)
    params = optax.apply_updates(state.params, steps)
    if losses.paused is not None:
        before = state.params, state.optimizers[update]
        params, opt = held(given.reduce.any(losses.paused), before, (params, opt))
    metrics[network.nodes[0]][f"gradient_norm/{update}"] = norm
    if update != "discriminator":
        squares = _measured(
            given.detailed,
            lambda: {key: _square(losses.gradient(key)[0]) for key in losses.values},
        )
        for (node, name), square in squares.items():
            norm = given.reduce.norm_of_parts(square)
            metrics[node][f"output_gradient_norm/{name}"] = norm
    for (node, name), value in losses.values.items():
        metrics[node][f"loss/{name}"] = given.reduce.over_devices(value)
    heads = _statistics(network, update, state.statistics["heads"], losses.statistics)
    return dataclasses.replace(
        state,
        params=params,
        statistics={**state.statistics, "heads": heads},
        optimizers={**state.optimizers, update: opt},
    )


def _statistics(network: Network, update: str, old: Any, new: Any) -> Any:
    """Statistics of heads, the new ones of those that losses of this update call and move."""

    def moved(node: str, head: str) -> bool:
        mask = network.trains[update]["heads"][node][head]
        return head != "transfer" and any(jax.tree.leaves(mask))

    return {
        node: {head: new[node][head] if moved(node, head) else x for head, x in own.items()}
        for node, own in old.items()
    }


def _measured(wanted: bool | jax.Array, measure: Callable[[], Any]) -> Any:
    """What `measure` gives, or zeros where it is not wanted."""
    if wanted is True:
        return measure()
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(measure))
    return zeros if wanted is False else jax.lax.cond(wanted, measure, lambda: zeros)


def _square(tree: Any) -> jax.Array:
    return jnp.square(optax.tree.norm(tree))
