"""What methods on logits share: the labels, and the softened predictions of the sources."""

from collections.abc import Mapping, Sequence

from afd_jax import losses
from afd_jax.graph import Graph
from afd_jax.methods.base import PerExample
from afd_jax.methods.maps import average
from afd_jax.networks.outputs import Outputs


def distil(
    graph: Graph,
    k: int,
    outputs: Sequence[Outputs],
    batch: Mapping,
    *,
    temperature: float,
    weight: float,
    scale_by_t_squared: bool = True,
) -> PerExample:
    """Cross-entropy, and the mean over k's sources of the distance from their softened predictions.

    Args:
      graph: who learns from whom.
      k: the node that learns.
      outputs: of all nodes.
      batch: holds "label" [batch].
      temperature: T of the distillation loss.
      weight: of the distillation loss; 0 leaves it out.
      scale_by_t_squared: multiply it by T².

    Returns:
      "cross_entropy" and, unless left out, "distillation", both [batch].
    """
    own = outputs[k].logits
    terms = {"cross_entropy": losses.cross_entropy(own, batch["label"])}
    sources = graph.sources(k)
    if sources and weight:
        kl = [
            losses.distillation_kl(
                own,
                outputs[j].logits,
                temperature=temperature,
                scale_by_t_squared=scale_by_t_squared,
            )
            for j in sources
        ]
        terms["distillation"] = weight * average(kl)
    return terms
