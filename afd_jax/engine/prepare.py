"""What a method trains on frozen teachers before the first step."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from afd_jax.engine.evaluate import Images
from afd_jax.engine.forward import answers_of
from afd_jax.engine.plan import Network, Plan
from afd_jax.engine.state import TrainState
from afd_jax.methods.method import View
from afd_jax.networks.functional import run
from afd_jax.networks.outputs import as_nodes


def prepare(
    plan: Plan,
    state: TrainState,
    batches: Callable[[], Iterator[Mapping[str, Any]]],
    preprocess: Images,
) -> TrainState:
    """The state with the teachers' heads as `plan.method.prepare` has trained them.

    Args:
      plan: of the run.
      state: at its beginning, of one seed.
      batches: called for each teacher; batches as `preprocess` takes them.
      preprocess: (rng, batch) to float images.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), 2)
    networks = dict(state.networks)
    for name in plan.graph.teachers:
        network, own = plan.networks[name], networks[name]
        if not network.heads:
            continue
        params, statistics = own.params["heads"][name], own.statistics["heads"][name]
        heads = {head: {"params": params[head], **statistics[head]} for head in params}
        features = jax.jit(functools.partial(_features, network, preprocess))
        maps = (
            features(own.variables, jax.random.fold_in(key, step), batch)
            for step, batch in enumerate(batches())
        )
        view = View(name, "teacher", answers_of(plan, network)[0])
        trained = plan.method.prepare(view, heads, maps, key)
        networks[name] = dataclasses.replace(
            own,
            params=_with_heads(own.params, name, {h: trained[h]["params"] for h in params}),
            statistics=_with_heads(
                own.statistics,
                name,
                {h: {k: v for k, v in trained[h].items() if k != "params"} for h in params},
            ),
        )
    return dataclasses.replace(state, networks=networks)


def _with_heads(tree: Mapping[str, Any], name: str, new: Mapping[str, Any]) -> dict[str, Any]:
    return {**tree, "heads": {**tree["heads"], name: new}}


def _features(
    network: Network, preprocess: Images, variables: Any, rng: jax.Array, batch: Any
) -> jax.Array:
    result, _ = run(network.module, variables, preprocess(rng, batch), {}, False)
    return as_nodes(result)[0].features
