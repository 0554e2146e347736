"""Networks run on a batch, and the losses of their nodes."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from afd_jax import losses
from afd_jax.engine.plan import ByNode, Network, Plan, blank_views
from afd_jax.engine.state import NetworkState
from afd_jax.errors import SettingError
from afd_jax.methods.batch import Batch
from afd_jax.methods.method import Terms, View
from afd_jax.networks.functional import blank_images, draw, run
from afd_jax.networks.heads import BoundHead
from afd_jax.networks.layers import single
from afd_jax.networks.outputs import Outputs, as_nodes
from afd_jax.networks.staged import StagedNetwork

Heads = Mapping[str, Mapping[str, BoundHead]]


def apply(
    plan: Plan,
    network: Network,
    params: Any,
    statistics: Any,
    images: jax.Array,
    rngs: Mapping[str, jax.Array],
) -> tuple[ByNode, Any]:
    """Runs a network as in training, or as in evaluation if it is frozen.

    Args:
      plan: of the run.
      network: one of its networks.
      params: as in `NetworkState`.
      statistics: likewise.
      images: [batch, height, width, channels], normalised; [batch, views, ...] for several views.
      rngs: keys for the network's stochastic layers, {"dropout": key}.

    Returns:
      The outputs by node, with what the heads "transfer" make of their maps; the new statistics,
      those of a frozen network as they were.
    """
    own, train = params["network"], not network.frozen
    if network.frozen:
        own = jax.lax.stop_gradient(own)
    if plan.precision == "bfloat16" and train:
        # Kernels, and those of a chain of blocks, which are stacked.
        own = jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.ndim >= 4 else x, own)
    variables = {"params": own, **statistics["network"]}
    result, updated = run(network.module, variables, images, dict(rngs), train)
    if network.frozen:
        updated = statistics["network"]
    outputs = dict(zip(network.nodes, map(_in_single, as_nodes(result)), strict=True))
    heads = bind(network, params["heads"], statistics["heads"])
    outputs = {node: transferred(output, heads.get(node, {})) for node, output in outputs.items()}
    return outputs, {"network": dict(updated), "heads": head_statistics(heads)}


def _in_single(output: Outputs) -> Outputs:
    """Logits in float32: what methods make of them may need more than half precision."""
    return dataclasses.replace(output, logits=single(output.logits))


def answers_of(plan: Plan, network: Network) -> tuple[Outputs, ...]:
    """What a network returns for two images in training, as shapes."""
    images = blank_views(network, blank_images(plan.image_shape))

    def answer(key: jax.Array) -> Any:
        variables = draw(network.module, plan.image_shape, network.start, key)
        return run(network.module, variables, images, {"dropout": key}, not network.frozen)[0]

    return as_nodes(jax.eval_shape(answer, jax.random.key(0)))


def transferred(output: Outputs, heads: Mapping[str, BoundHead]) -> Outputs:
    """The output with its map in the shape that it shares with others."""
    if "transfer" not in heads:
        return output
    extras = {**output.extras, "transfer": heads["transfer"](output.features)}
    return dataclasses.replace(output, extras=extras)


def bind(network: Network, params: Any, statistics: Any) -> dict[str, dict[str, BoundHead]]:
    """A network's heads together with their variables, by node."""
    return {
        node: {
            name: BoundHead(module, {"params": params[node][name], **statistics[node][name]})
            for name, module in heads.items()
        }
        for node, heads in network.heads.items()
    }


def bind_all(plan: Plan, states: Mapping[str, NetworkState]) -> dict[str, dict[str, BoundHead]]:
    """The heads of all nodes."""
    bound: dict[str, dict[str, BoundHead]] = {}
    for name, network in plan.networks.items():
        bound |= bind(network, states[name].params["heads"], states[name].statistics["heads"])
    return bound


def head_statistics(heads: Heads) -> Any:
    """What is no parameter of heads, as it is after their calls."""
    return {
        node: {name: split(head.variables)[0] for name, head in own.items()}
        for node, own in heads.items()
    }


def split(variables: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """(all collections but the parameters, the parameters)."""
    rest = dict(variables)
    params = rest.pop("params", {})
    return rest, params


def terms_of(
    plan: Plan,
    network: Network,
    outputs: Mapping[str, Outputs],
    heads: Heads,
    variables: Mapping[str, Any],
    partners: Mapping[str, Outputs],
    batch: Batch,
) -> dict[str, Terms]:
    """The losses of a network's nodes; all that is not the network's own is a constant.

    Args:
      plan: of the run.
      network: whose nodes learn.
      outputs: of all nodes.
      heads: of all nodes.
      variables: of all networks, by name; those of frozen teachers are looked at.
      partners: what networks say of another image of the class, where the batch has them.
      batch: the labels and more.
    """

    def constant(node: str) -> View:
        own = {} if node in network.nodes else heads.get(node, {})
        output, after = outputs[node], None
        if plan.graph[node].role == "teacher":
            after = functools.partial(_after, plan.networks[node], variables[node])
        if node not in network.nodes or not plan.method.gradient_to_branches:
            output = jax.lax.stop_gradient(output)
        return View(node, plan.graph[node].role, output, own, run_after=after)

    terms = {}
    for node in network.nodes:
        role = plan.graph[node].role
        if role == "twin":
            entropy = losses.cross_entropy(outputs[node].logits, batch.targets)
            terms[node] = Terms(logit={"cross_entropy": entropy})
        elif node in plan.graph.learners:
            sources = tuple(constant(source) for source in plan.graph.sources(node))
            own = View(
                node,
                role,
                outputs[node],
                heads.get(node, {}),
                sources,
                on_partner=jax.lax.stop_gradient(partners.get(node)),
            )
            terms[node] = plan.method.losses(own, sources, batch)
    return terms


def _after(network: Network, variables: Any, maps: jax.Array, stages: int) -> Outputs:
    """What a frozen network makes of a map at the end of one of its stages."""
    module = network.module.module
    if not isinstance(module, StagedNetwork):
        remedy = "cannot be entered between two stages; take one of afd_jax.networks, or a "
        raise SettingError("teachers", network.name, remedy + "StagedNetwork")
    run_after = functools.partial(module.apply, train=False, stages=stages, method="after")
    outputs: Any = run_after(jax.lax.stop_gradient(variables), maps)
    return outputs


def mean_losses(terms: Mapping[str, Terms], update: str) -> dict[tuple[str, str], jax.Array]:
    """Batch means of the losses of one update, by node and name."""
    return {
        (node, name): losses.mean(values)
        for node, own in terms.items()
        for name, values in getattr(own, update).items()
    }
