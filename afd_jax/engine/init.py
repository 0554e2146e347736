"""The arrays that a run starts from."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from afd_jax import speedups
from afd_jax.engine.forward import Heads, apply, split, terms_of, transferred
from afd_jax.engine.plan import Network, Plan, blank_batch, blank_views
from afd_jax.engine.state import NetworkState, TrainState
from afd_jax.errors import SettingError
from afd_jax.networks.functional import draw
from afd_jax.networks.heads import BoundHead


def init_state(
    plan: Plan,
    rng: jax.Array,
    teachers: Mapping[str, Mapping[str, Any]] | None = None,
    init_from: Mapping[str, Mapping[str, Any]] | None = None,
) -> TrainState:
    """Makes the arrays of a new run; equal networks are drawn by one compiled program.

    Args:
      plan: of the run.
      rng: a key, `jax.random.key(seed)`, or [seeds] keys for as many runs side by side.
      teachers: variables of each frozen teacher by name, {"params": ..., "batch_stats": ...}, with
        an axis of seeds if the keys have one.
      init_from: likewise of networks that do not start at random; their twins, averages and
        snapshots start as they do.

    Raises:
      SettingError: if variables are missing or not those of the network, or the key is none.
    """
    if not isinstance(rng, jax.Array):
        raise SettingError("rng", rng, "must be a key: jax.random.key(0)")
    if not jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):  # as `jax.random.PRNGKey` makes them
        rng = jax.random.wrap_key_data(rng)
    if rng.dtype != jax.random.key(0).dtype:  # steps take the default again
        remedy = "must be a key of JAX's default kind; set jax_default_prng_impl for another"
        raise SettingError("rng", rng.dtype, remedy)
    teachers = teachers or {}
    if {*teachers} != {*plan.graph.teachers}:
        remedy = f"give the variables of each frozen teacher: {', '.join(plan.graph.teachers)}"
        raise SettingError("teachers", sorted(teachers), remedy)
    over_seeds = jax.vmap if rng.ndim else lambda function: function
    options = speedups.once_options(jax.default_backend())

    def drawn(module: Any, start: int, rng: jax.Array) -> Any:
        return over_seeds(lambda key: draw(module, plan.image_shape, start, key))(rng)

    compiled = jax.jit(drawn, static_argnums=0, compiler_options=options)
    first = {}
    for name, network in plan.networks.items():
        field, given = "init_from", (init_from or {}).get(network.of or name)
        if network.role == "teacher":
            field, given = "teachers", teachers[name]
        if given is not None:
            shapes = jax.eval_shape(lambda key, m=network.module: drawn(m, 0, key), rng)
            first[name] = _given(field, name, given, shapes)
        else:
            first[name] = compiled(network.module, network.start, rng)

    def rest(rng: jax.Array, first: Any) -> TrainState:
        return _init(plan, rng, first)

    return jax.jit(over_seeds(rest), compiler_options=options)(rng, first)


def state_shapes(plan: Plan) -> TrainState:
    """The state of a new run as shapes and types, without computing it."""

    def state(rng: jax.Array) -> TrainState:
        first = {
            name: draw(network.module, plan.image_shape, network.start, rng)
            for name, network in plan.networks.items()
        }
        return _init(plan, rng, first)

    return jax.eval_shape(state, jax.random.key(0))


def _init(plan: Plan, rng: jax.Array, first: Mapping[str, Any]) -> TrainState:
    memory = {}
    if plan.memory is not None:
        memory = plan.memory.begin(plan.graph.learners, plan.examples, plan.classes)
    networks = {}
    for name, state in _with_heads(plan, rng, first, memory).items():
        optimizers = plan.networks[name].optimizers
        opt = {update: optimizer.init(state.params) for update, optimizer in optimizers.items()}
        networks[name] = dataclasses.replace(state, optimizers=opt)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        rng=jax.random.key_data(rng),
        networks=networks,
        memory=memory,
    )


def _with_heads(
    plan: Plan, rng: jax.Array, first: Mapping[str, Any], memory: Any
) -> dict[str, NetworkState]:
    """Parameters and statistics of all networks and heads, without optimizer states.

    Heads take the shapes that they are first called with, so the losses are traced once.
    """
    batch = blank_batch(plan)
    key = jax.random.fold_in(rng, 1)
    heads: dict[str, dict[str, BoundHead]] = {}
    outputs: dict[str, Any] = {}
    partners: dict[str, Any] = {}
    for name, network in plan.networks.items():
        statistics, params = split(first[name])
        headless = dataclasses.replace(network, heads={})
        given = {"network": params, "heads": {}}, {"network": statistics, "heads": {}}
        images = blank_views(network, batch["image"])
        own, _ = apply(plan, headless, *given, images, {"dropout": key})
        heads |= _unbound(network, key)
        outputs |= {node: transferred(o, heads.get(node, {})) for node, o in own.items()}
        if "partner_image" in batch:
            partners |= own
    seen = plan.seen(batch, jnp.zeros((), jnp.int32), memory)
    for network in plan.networks.values():
        of = terms_of(plan, network, outputs, heads, first, partners, seen)
        for node, terms in of.items():
            terms.check(node, len(batch["label"]))
    return {
        name: _state(first[name], {n: heads[n] for n in network.heads})
        for name, network in plan.networks.items()
    }


def _unbound(network: Network, rng: jax.Array) -> dict[str, dict[str, BoundHead]]:
    """Heads without variables; each draws from its own name, so order means nothing."""

    def key(node: str, head: str) -> jax.Array:
        return jax.random.fold_in(rng, zlib.crc32(f"{node}/{head}".encode()))

    return {
        node: {name: BoundHead(module, rng=key(node, name)) for name, module in own.items()}
        for node, own in network.heads.items()
    }


def _state(variables: Any, heads: Heads) -> NetworkState:
    statistics, params = split(variables)
    for node, own in heads.items():
        for name, head in own.items():
            if head.variables is None:
                remedy = f"is declared for {node}, but no loss calls it; leave it out"
                raise SettingError("method.heads", name, remedy)
    parts = {
        node: {name: split(head.variables) for name, head in own.items()}
        for node, own in heads.items()
    }
    return NetworkState(
        params={
            "network": params,
            "heads": {n: {h: p for h, (_, p) in own.items()} for n, own in parts.items()},
        },
        statistics={
            "network": statistics,
            "heads": {n: {h: s for h, (s, _) in own.items()} for n, own in parts.items()},
        },
        optimizers={},
    )


def difference(variables: Mapping[str, Any], shapes: Any) -> str | None:
    """The first array of a network that is missing, unknown or of another shape, in words.

    Args:
      variables: that are given.
      shapes: that the network needs.
    """
    wanted, given = (
        {
            jax.tree_util.keystr(path, simple=True, separator="/"): np.shape(leaf)
            for path, leaf in jax.tree.leaves_with_path(tree)
        }
        for tree in (shapes, dict(variables))
    )
    for path in {**wanted, **given}:
        if wanted.get(path) != given.get(path):
            return f"the network's {path} has shape {wanted.get(path)}, the given {given.get(path)}"
    return None


def _given(field: str, name: str, variables: Mapping[str, Any], shapes: Any) -> Any:
    """Variables for a network, checked and in its types."""
    if remedy := difference(variables, shapes):
        raise SettingError(field, name, remedy)
    return jax.tree.map(lambda like, x: jnp.array(x, like.dtype), shapes, dict(variables))
