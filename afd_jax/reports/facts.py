"""A plan as plain facts: what reports know of a run, and graph.json holds."""

from typing import Any

import jax

from afd_jax.engine.init import state_shapes
from afd_jax.engine.plan import Plan
from afd_jax.networks.branched import single

Facts = dict[str, Any]


def graph_facts(plan: Plan) -> Facts:
    """{"method", "nodes": [{"name", "network", "role", "of", "parameters"}], "edges": [...]}.

    Parameters are those of the node as a network of its own, without heads.
    """
    shapes = state_shapes(plan).networks
    nodes = []
    for name, network in plan.networks.items():
        variables = {"params": shapes[name].params["network"]}
        for index, node in enumerate(network.nodes):
            _, own, _ = single(network.module.module, variables, index)
            count = sum(x.size for x in jax.tree.leaves(own))
            facts = plan.graph[node]
            nodes.append(
                {
                    "name": node,
                    "network": name,
                    "role": facts.role,
                    "of": facts.of,
                    "parameters": count,
                }
            )
    edges = [list(edge) for edge in plan.graph.edges]
    labels = {"labels": list(plan.graph.labels)} if plan.graph.labels else {}
    return {"method": type(plan.method).__name__, "nodes": nodes, "edges": edges, **labels}


def with_role(facts: Facts, *roles: str) -> list[str]:
    """Names of the nodes that have one of the roles."""
    return [node["name"] for node in facts["nodes"] if node["role"] in roles]


OTHERS = ("ensemble", "average", "snapshot", "teacher")
"""The roles of what stands beside students and their twins."""
