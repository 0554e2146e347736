"""The networks that train together, with method and optimizers: what stays the same during a run.

`afd_jax.engine.build.make_cohort` makes one and checks it; `afd_jax.engine.init.init_state` makes its arrays.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from afd_jax.methods.method import Context, Method
from afd_jax.engine.state import TrainState

UPDATES = ("logit", "feature", "discriminator")
PRECISIONS = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Peer:
    """One network and what belongs to it, without its arrays.

    Attributes:
      name: for logs.
      network: Flax module that returns `Outputs`, or a tuple of them.
      nodes: names of its nodes in the graph: its own name, or one for each of its outputs.
      projections: the method's layers on top of the network, by name.
      discriminators: the discriminators this node owns, by name.
      optimizers: those of `UPDATES` that the method uses for this node.
      start: number that the network's first parameters are drawn from; equal for a network and its
        twin, so that they start from the same ones.
      views: how many augmentations of a batch it takes, beside each other on axis 1; 1 is none.
      follows: number of the peer that this one is the follower of; None if it is none.
      frozen: neither parameters nor statistics ever change in a step; it runs as in evaluation.
        Layers that the method puts on top of it may train all the same.
    """

    name: str
    network: nn.Module
    nodes: tuple[str, ...]
    projections: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
    discriminators: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
    optimizers: Mapping[str, optax.GradientTransformation] = dataclasses.field(default_factory=dict)
    start: int = 0
    views: int = 1
    follows: int | None = None
    frozen: bool = False


@dataclasses.dataclass(frozen=True)
class Cohort:
    """All networks, the method that connects their nodes, and the shape of their input.

    Attributes:
      peers: the networks; their nodes, one after the other, are those of the graph.
      members: how many nodes, counted from the first, are the networks or branches asked for. The
        others are their twins, which learn alone, or what else the method makes of them, and, at
        the end, frozen teachers.
      method: graph and losses.
      image_shape: (height, width, channels).
      classes: number of classes.
      total_steps: of the run, if it is known.
      steps_per_epoch: likewise.
      examples: of the training set, likewise.
      alone: whether the nodes after the members are their twins.
      precision: of the networks' own arithmetic in training. With "bfloat16" the network and the
        gradients inside it are computed in half precision; parameters, BatchNorm's statistics,
        what the network returns, losses, heads and optimizers stay in float32.
    """

    peers: tuple[Peer, ...]
    members: int
    method: Method
    image_shape: tuple[int, int, int]
    classes: int
    total_steps: int | None = None
    steps_per_epoch: int | None = None
    examples: int = 0
    alone: bool = False
    precision: str = "float32"

    @property
    def teachers(self) -> range:
        """Numbers of the peers that are frozen teachers: the last ones."""
        return range(len(self.peers) - self.method.teachers, len(self.peers))

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of all nodes."""
        return tuple(name for peer in self.peers for name in peer.nodes)

    def nodes_of(self, p: int) -> range:
        """Numbers of the nodes of peer p."""
        first = sum(len(peer.nodes) for peer in self.peers[:p])
        return range(first, first + len(self.peers[p].nodes))

    def context(self, batch: Mapping[str, jax.Array], state: TrainState) -> Context:
        """What losses on logits may look at beside the outputs."""
        progress = jnp.asarray(state.step, float) / (self.total_steps or jnp.inf)
        per_epoch = self.steps_per_epoch
        return Context(
            label=batch["label"],
            index=batch["index"],
            progress=progress,
            epoch=state.step // per_epoch if per_epoch else 0,
            epochs=(self.total_steps or math.inf) / per_epoch if per_epoch else math.inf,
            memory=state.memory,
        )


def batch_shapes(cohort: Cohort) -> dict[str, jax.ShapeDtypeStruct]:
    """A batch of two as a step takes it, without its numbers: enough to trace a program."""
    images = jax.ShapeDtypeStruct((2, *cohort.image_shape), jnp.float32)
    numbers = jax.ShapeDtypeStruct((2,), jnp.int32)
    return {
        "image": images,
        "label": numbers,
        "index": numbers,
        "partner_image": images,
        "partner": numbers,
    }
