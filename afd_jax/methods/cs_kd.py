"""CS-KD: Regularizing Class-wise predictions via self-Knowledge Distillation.

Yun, Park, Lee, Shin; CVPR 2020; arXiv 2003.13964. With z' the logits of another image of the same
class, by the same network:

  CE(y, softmax(z)) + weight * T² KL(softmax(z' / T) || softmax(z / T)),   T = 4, weight 1

z' is a constant, and comes from a forward pass of its own. Ours: the BatchNorm averages that
evaluation uses are of the first pass alone (in the authors' code the second adds to them, too).
"""

import dataclasses
from typing import ClassVar

from afd_jax.methods.method import Follower
from afd_jax.methods.logits import LogitMethod


@dataclasses.dataclass(frozen=True)
class CSKD(LogitMethod):
    """Each network learns from the labels and from its own prediction of a like image."""

    temperature: float = 4.0

    own_graph: ClassVar[str] = "none"
    teacher_count: ClassVar[tuple[int, int | None]] = (0, 0)
    follower: ClassVar[Follower | None] = Follower("pairs of", decay=0.0, sees_partners=True)
    takes_twins: ClassVar[bool] = False
    takes_peers: ClassVar[bool] = False
