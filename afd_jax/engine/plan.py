"""What stays the same during a run: networks, graph, method, and how they are updated.

`engine.build.make_plan` makes a plan and checks it; `engine.init.init_state` makes its arrays.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from afd_jax import losses
from afd_jax.engine.reduce import Reduce
from afd_jax.graph import Graph
from afd_jax.methods.batch import Batch
from afd_jax.methods.memory import Memory
from afd_jax.methods.method import Method
from afd_jax.networks.outputs import Outputs

PRECISIONS = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Network:
    """One network without its arrays.

    Attributes:
      name: of the network: of its node, or that which its branches share.
      module: as `networks.functional` gives it.
      nodes: names of its nodes in the graph, in the order of what it returns.
      role: of its nodes; "student" for one in branches.
      start: number that the first parameters are drawn from; equal for a student and its twin,
        average or snapshot, so that they start alike.
      of: name of the network that this twin, average or snapshot belongs to.
      views: how many augmentations of a batch it takes, beside each other on axis 1; 1 is none.
      heads: the small networks of each node, by name.
      optimizers: by update, those that move something here.
      trains: by update, a tree like the parameters that says which ones it moves.
    """

    name: str
    module: Any
    nodes: tuple[str, ...]
    role: str = "student"
    start: int = 0
    of: str | None = None
    views: int = 1
    heads: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    optimizers: Mapping[str, optax.GradientTransformation] = dataclasses.field(default_factory=dict)
    trains: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def frozen(self) -> bool:
        """Whether it runs as in evaluation, and no step changes it by losses."""
        return self.role in ("teacher", "snapshot")


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a step needs beside arrays.

    Attributes:
      networks: by name.
      graph: of their nodes.
      method: the losses of nodes and edges.
      image_shape: (height, width, channels).
      classes: number of classes.
      total_steps: of the run, if it is known.
      steps_per_epoch: likewise.
      examples: of the training set; 0 if it is not known.
      second_forward: run the networks again between the logit and the feature update.
      own_augmentation: augment the batch for each network or branch apart; else all see the same.
      average_decay: of moving averages, at most.
      label_smoothing: probability that every label spreads evenly over all classes; 0 for none.
        Networks must then leave no class out (a logit of -inf), or the loss is infinite.
      precision: of the convolutions in training. With "bfloat16" kernels and what they are
        multiplied with are in half precision; parameters, BatchNorm, classifier, logits, losses,
        heads and optimizers stay in float32.
    """

    networks: Mapping[str, Network]
    graph: Graph
    method: Method
    image_shape: tuple[int, int, int]
    classes: int
    total_steps: int | None = None
    steps_per_epoch: int | None = None
    examples: int = 0
    second_forward: bool = False
    own_augmentation: bool = False
    average_decay: float = 0.999
    label_smoothing: float = 0.0
    precision: str = "float32"

    def network_of(self, node: str) -> Network:
        """The network that a node belongs to."""
        return next(network for network in self.networks.values() if node in network.nodes)

    @property
    def memory(self) -> Memory | None:
        """The method, if it remembers."""
        return self.method if isinstance(self.method, Memory) else None

    def seen(
        self,
        batch: Mapping[str, jax.Array],
        step: jax.Array,
        memory: Any,
        reduce: Reduce | None = None,
        key: jax.Array | None = None,
    ) -> Batch:
        """What losses may look at beside the outputs.

        Args:
          batch: of the step.
          step: updates done so far.
          memory: the method's own arrays.
          reduce: over devices; none outside of a step.
          key: what losses draw from; outside of a step always the same.
        """
        per_epoch, total = self.steps_per_epoch, self.total_steps
        reduce = reduce or Reduce(None)
        return Batch(
            label=batch.get("label"),
            soft_label=self._soft_label(batch),
            index=batch.get("index"),
            progress=jnp.asarray(step, float) / total if total else None,
            epoch=step // per_epoch if per_epoch else None,
            epochs=total / per_epoch if total and per_epoch else None,
            memory=None if self.memory is None else memory,
            key=jax.random.key(0) if key is None else key,
            whole=reduce.whole,
            place=reduce.place(len(next(iter(batch.values())))),
        )

    def _soft_label(self, batch: Mapping[str, jax.Array]) -> jax.Array | None:
        """The batch's own soft labels, smoothed; None if all labels are hard."""
        label, smoothing = batch.get("soft_label"), self.label_smoothing
        if not smoothing or "label" not in batch:
            return label
        if label is None:
            label = losses.label_distribution(batch["label"], self.classes, correct=1.0)
        return (1 - smoothing) * label + smoothing / self.classes

    def with_axis(self, axis_name: str) -> "Plan":
        """A copy whose BatchNorm layers take their statistics over a device axis, too."""

        def whole(network: Network) -> Network:
            heads = {
                node: {name: head.with_axis(axis_name) for name, head in own.items()}
                for node, own in network.heads.items()
            }
            module = network.module if network.frozen else network.module.with_axis(axis_name)
            return dataclasses.replace(network, module=module, heads=heads)

        networks = {name: whole(network) for name, network in self.networks.items()}
        return dataclasses.replace(self, networks=networks)


def blank_batch(plan: Plan) -> dict[str, jax.Array]:
    """A batch of two without anything in it: enough to trace a program."""
    images = jnp.zeros((2, *plan.image_shape), jnp.float32)
    numbers = jnp.zeros((2,), jnp.int32)
    batch = {"image": images, "label": numbers, "index": numbers}
    if plan.method.pairs:
        batch |= {"partner_image": images, "partner": numbers}
    return batch


def blank_views(network: Network, images: jax.Array) -> jax.Array:
    """The same images as a network takes them: once, or once for each of its views."""
    return jnp.stack([images] * network.views, axis=1) if network.views > 1 else images


ByNode = dict[str, Outputs]
