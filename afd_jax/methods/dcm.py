"""DCM: Knowledge Transfer via Dense Cross-Layer Mutual-Distillation.

Yao, Sun; ECCV 2020; arXiv 2008.07816, as in the authors' code. Each network has two auxiliary
classifiers, on the maps two stages and one stage before its last. With o_i the logits of a
network's three classifiers, and o_j those of another's:

  sum over i of CE(y, softmax(o_i)) + sum over i, j of KL(softmax(o_j) || softmax(o_i))

where o_j is a constant. An edge carries all pairs of classifiers, those of one stage and those of
different stages; the mean over several sources is assumed, as the paper has pairs of networks.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from afd_jax.errors import SettingError
from afd_jax.methods import options, soft
from afd_jax.methods.batch import Batch
from afd_jax.methods.maps import stage
from afd_jax.methods.method import Method, Terms, View
from afd_jax.networks.auxiliary import AuxiliaryClassifier


@dataclasses.dataclass(frozen=True)
class DCM(Method):
    """Every classifier of a network learns from every classifier of its sources.

    Attributes:
      temperature: T; 1 as published.
      distillation_weight: of the divergences; 1 as published, 0 leaves them out.
      cross_stage: classifiers of different stages teach each other, too.
      depth: blocks in a stage of an auxiliary classifier; half as many in the last stage of the
        first one (4 and 2 for WRN-28, which has as many in each of its own).
    """

    teachers: ClassVar[tuple[int, int | None]] = (0, 0)

    temperature: float = soft.temperature(1.0)
    distillation_weight: float = soft.weight(1.0)
    cross_stage: bool = options.flag(True)
    depth: int = options.number(4, least=2, whole=True)

    def heads(self, own: View) -> Mapping[str, Any]:
        """The auxiliary classifiers.

        Raises:
          SettingError: if the network has less than three stages.
        """
        if len(own.stages) < 3:
            remedy = f"DCM needs three stages, but {own.name} has {len(own.stages)}"
            raise SettingError("networks", own.name, remedy)
        low, middle, high = own.stages[-3:]
        classes, width, last = own.logits.shape[-1], middle.shape[-1], high.shape[-1]
        strides = tuple(
            round(before.shape[1] / after.shape[1])
            for before, after in ((low, middle), (middle, high))
        )
        blocks = (self.depth, self.depth // 2)
        return {
            "auxiliary1": AuxiliaryClassifier(classes, (width, last), blocks, strides),
            "auxiliary2": AuxiliaryClassifier(classes, (2 * last,), blocks[:1], strides[1:]),
        }

    def losses(self, own: View, sources: Sequence[View], batch: Batch) -> Terms:
        """All cross-entropies, and all divergences, their mean over sources."""
        ours = _classifiers(own)
        hard = [soft.labels(logits, batch)["cross_entropy"] for logits in ours]
        terms = Terms(logit={"cross_entropy": hard[0], "auxiliary": hard[1] + hard[2]})
        if not self.distillation_weight:
            return terms
        return terms + Terms.mean([self._learned(ours, _classifiers(other)) for other in sources])

    def _learned(self, ours: Sequence[Any], theirs: Sequence[Any]) -> Terms:
        """From one source."""
        each = [
            soft.divergence(
                logits, target, temperature=self.temperature, weight=self.distillation_weight
            )
            for i, logits in enumerate(ours)
            for j, target in enumerate(theirs)
            if i == j or self.cross_stage
        ]
        return Terms(logit={"distillation": sum(each[1:], each[0])})


def _classifiers(node: View) -> list[Any]:
    """The logits of a node's own classifier and of the auxiliary ones."""
    low, middle = stage(node, -3, "networks"), stage(node, -2, "networks")
    return [node.logits, node.head("auxiliary1")(low), node.head("auxiliary2")(middle)]
