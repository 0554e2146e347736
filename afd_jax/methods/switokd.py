"""SwitOKD: Switchable Online Knowledge Distillation.

Qian, Wang, Yin, Hong, Wang; ECCV 2022; arXiv 2209.04996. A teacher t and a student s learn from
each other as in `dml`, until the teacher runs too far ahead. With p = softmax(z / T), L1 norms and
means over the whole batch, on all devices:

  S = |p_s - y|,  E = |p_t - y|,  G = |p_s - p_t|,  threshold d = S - exp(-E / (S + E)) E

While G > d and E < S the teacher pauses: it takes no step, and momentum and weight decay rest, too;
its BatchNorm statistics, and what its learning rate's schedule counts, go on. The student keeps
learning from it. The condition E < S and what rests are as in the authors' code, which trains at
T = 1.

Of more than two networks (assumed): a teacher pauses while it is ahead of every network that never
pauses, and losses are means over edges. The authors' codes for three networks add them up; with two
students theirs then leaves out divergences and the cross-entropy rather than the step.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from afd_jax.errors import SettingError, one_of
from afd_jax.graph import Edge, Graph
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.method import Method, Terms, View


@dataclasses.dataclass(frozen=True)
class SwitOKD(Method):
    """Networks learn from each other; those too far ahead wait for the others.

    Attributes:
      temperature: T; 1 in the authors' code.
      distillation_weight: of the divergence; 0 leaves it out.
      standardize: compare logits without their shift and scale (LSKD, `losses.standardize`).
      pausing: names of the teachers, which may pause; if empty, whoever is ahead of all others
        (assumed).
    """

    teachers: ClassVar[tuple[int, int | None]] = (0, 0)

    temperature: float = soft.temperature(1.0)
    distillation_weight: float = soft.weight(1.0)
    standardize: bool = soft.standardize()
    pausing: Sequence[str] = options.names(())

    def node(self, own: View, batch: Batch) -> Terms:
        """Cross-entropy."""
        return Terms(logit=soft.labels(own.logits, batch))

    def edge(self, own: View, source: View, batch: Batch) -> Terms:
        """The softened predictions."""
        return soft.predictions(self, own, source)

    def losses(self, own: View, sources: Sequence[View], batch: Batch) -> Terms:
        """Those of node and edges, and whether the node pauses."""
        terms = super().losses(own, sources, batch)
        behind = [source for source in sources if source.name not in self.pausing]
        if not behind or (self.pausing and own.name not in self.pausing):
            return terms
        paused = jnp.all(jnp.stack([self._far_ahead(own, source, batch) for source in behind]))
        share = jnp.broadcast_to(paused, (len(own.logits),)).astype(jnp.float32)
        return terms + Terms(metrics={"paused": share}, paused=paused)

    def _far_ahead(self, own: View, source: View, batch: Batch) -> jax.Array:
        """Whether the gap to a source is above the threshold, and this network is better."""
        label = batch.targets
        if jnp.issubdtype(label.dtype, jnp.integer):
            label = jax.nn.one_hot(label, own.logits.shape[-1])

        def apart(a: jax.Array, b: jax.Array) -> jax.Array:
            return jnp.mean(batch.whole(jnp.sum(jnp.abs(a - b), axis=-1)))

        teacher, student = (
            jax.lax.stop_gradient(jax.nn.softmax(view.logits / self.temperature))
            for view in (own, source)
        )
        ahead, behind = apart(teacher, label), apart(student, label)
        both = jnp.maximum(ahead + behind, jnp.finfo(ahead.dtype).tiny)
        threshold = behind - jnp.exp(-ahead / both) * ahead
        return (apart(teacher, student) > threshold) & (ahead < behind)

    def edges(self, graph: Graph, shape: Any) -> tuple[Edge, ...]:
        """All pairs, unless another shape is asked for."""
        for name in self.pausing:
            if name not in graph.students:
                raise SettingError("method.pausing", name, one_of(name, graph.students))
        if {*self.pausing} == {*graph.students}:
            remedy = "leave out one network that never pauses, the student"
            raise SettingError("method.pausing", self.pausing, remedy)
        edges = super().edges(graph, shape)
        for name in self.pausing:
            if not any(to == name and source not in self.pausing for source, to in edges):
                remedy = "learns from no network that never pauses, so it would never pause; add "
                remedy += "such an edge, or leave it out"
                raise SettingError("method.pausing", name, remedy)
        return edges
