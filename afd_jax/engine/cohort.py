"""Networks that teach each other, as one object: what people hold in a notebook.

All it does is done by the pure functions of the other files, which take its `plan`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from afd_jax.engine import build, init, parts
from afd_jax.engine.build import numbered
from afd_jax.engine.devices import Devices, make_devices
from afd_jax.engine.evaluate import as_floats, eval_logits
from afd_jax.engine.plan import Plan
from afd_jax.engine.state import TrainState
from afd_jax.engine.step import Metrics, train_step
from afd_jax.errors import SettingError, one_of
from afd_jax.graph import Graph
from afd_jax.methods.method import Method, Terms
from afd_jax.networks import create
from afd_jax.networks.functional import forget_traces
from afd_jax.networks.outputs import Outputs

Networks = Sequence[Any] | Mapping[str, Any]


class Cohort:
    """Networks, the method that connects them, and one step of their training.

    Args:
      networks: names ("resnet8", "package.module:Class"), Linen or NNX modules, in a list or by
        name; equal names get numbers.
      method: graph and losses, `afd.methods.AFD()`.
      image_shape: (height, width, channels).
      classes: number of classes.
      teachers: frozen networks in the same forms, or what `afd.load` returns; called "teacher",
        "teacher_1", ... unless they have names.
      **settings: as in `engine.build.make_plan`: graph, twins, optimizers (AFD's unless given),
        total_steps, steps_per_epoch, examples, second_forward, precision, ...

    Attributes:
      plan: what stays the same, for the pure functions of `afd_jax.engine`.
      graph: who learns from whom; draws itself in a notebook.

    Raises:
      SettingError: for what cannot work, before anything is compiled.
    """

    def __init__(
        self,
        networks: Networks,
        method: Method,
        *,
        image_shape: tuple[int, int, int],
        classes: int,
        teachers: Networks = (),
        **settings: Any,
    ):
        forget_traces()
        frozen = _by_name(teachers, classes, "teachers", "teacher")
        trained = {n: t for n, t in frozen.items() if hasattr(t, "recipe")}
        for name, teacher in trained.items():
            if teacher.image_shape not in (None, tuple(image_shape)):
                remedy = f"was trained on images {teacher.image_shape}, not {tuple(image_shape)}"
                raise SettingError("teachers", name, remedy)
        self._given = {name: teacher.variables for name, teacher in trained.items()}
        self.plan: Plan = build.make_plan(
            _by_name(networks, classes, "networks"),
            method,
            image_shape=tuple(image_shape),  # type: ignore[arg-type]
            classes=classes,
            teachers={n: t.module if n in self._given else t for n, t in frozen.items()},
            **settings,
        )

    @property
    def graph(self) -> Graph:
        """Who learns from whom."""
        return self.plan.graph

    def __repr__(self) -> str:
        return f"Cohort of {', '.join(self.plan.networks)}:\n{self.graph}"

    def init(
        self, rng: jax.Array, teachers: Mapping[str, Mapping[str, Any]] | None = None
    ) -> TrainState:
        """The arrays of a new run; arguments as in `engine.init.init_state`.

        Teachers that `afd.load` returned bring their variables along. If `rng` holds one key per
        seed, wrap the other functions in `jax.vmap` over the state.

        Raises:
          SettingError: for a method that learns outside steps, which only a run does.
        """
        name = type(self.plan.method).__name__
        if self.plan.memory is not None and self.plan.memory.uses_heldout:
            remedy = "learns from held-out images once an epoch, which only a run does: afd.train"
            raise SettingError("method", name, remedy)
        if self.plan.method.preparation_epochs and self.graph.teachers:
            remedy = "trains on its teachers before the first step, which only a run does: "
            remedy += "afd.train"
            raise SettingError("method", name, remedy)
        own = jax.tree.map(lambda x: jnp.broadcast_to(x, (*_seeds(rng), *x.shape)), self._given)
        return init.init_state(self.plan, rng, {**own, **(teachers or {})})

    def forward(self, state: TrainState, batch: Mapping[str, Any]) -> dict[str, Outputs]:
        """What every node says of a batch, as in training; no statistics are kept."""
        return self._forward(state, self._checked(batch))

    def losses(self, state: TrainState, batch: Mapping[str, Any]) -> dict[str, Terms]:
        """The terms of each node that learns, one value per example.

        `losses(state, batch)["resnet8"].logit["distillation"]` has shape [batch].
        """
        return self._losses(state, self._checked(batch))

    def gradients(self, state: TrainState, batch: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """By network and update the gradient of the summed batch means, {"network", "heads"}.

        What the update does not move has a gradient of zeros.
        """
        return self._gradients(state, self._checked(batch))

    def step(self, state: TrainState, batch: Mapping[str, Any]) -> tuple[TrainState, Metrics]:
        """One update of all networks; compiled at the first call. See `engine.step.train_step`."""
        return self._step(state, self._checked(batch))

    def logits(self, state: TrainState, images: jax.Array) -> dict[str, jax.Array]:
        """[batch, classes] by node, as in evaluation."""
        images = self._checked_images(jnp.asarray(images), "images")
        return self._logits(state, as_floats(jax.random.key(0), {"image": images}))

    def __getstate__(self) -> dict[str, Any]:
        """Without what is compiled, for copies."""
        return {name: self.__dict__[name] for name in ("_given", "plan")}

    def _checked(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        if self.plan.own_augmentation:
            remedy = "a cohort augments nothing, only a run does: afd.train; leave it out"
            raise SettingError("own_augmentation", True, remedy)
        arrays = _checked(self.plan, batch)
        image = self._checked_images(arrays["image"], "batch.image")
        if "partner_image" not in arrays:
            return {**arrays, "image": image}
        partner = self._checked_images(arrays["partner_image"], "batch.partner_image")
        wanted = (image.dtype, len(image))
        if (partner.dtype, len(partner)) != wanted:
            remedy = f"must be {len(image)} images of type {image.dtype}, as batch.image"
            raise SettingError("batch.partner_image", f"{len(partner)} {partner.dtype}", remedy)
        return {**arrays, "image": image, "partner_image": partner}

    def _checked_images(self, images: jax.Array, field: str) -> jax.Array:
        """Raises SettingError for another shape, or for bytes that no teacher has learned from."""
        shape = self.plan.image_shape
        if images.ndim != 4 or images.shape[1:] != shape:
            remedy = f"must be [batch, {', '.join(map(str, shape))}]"
            raise SettingError(field, images.shape, remedy)
        if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
            remedy = "must be uint8, from 0 to 255, or floating-point numbers"
            raise SettingError(field, str(images.dtype), remedy)
        if self._given and images.dtype == jnp.uint8:
            remedy = f"{', '.join(self._given)} learned from normalised images; give those, "
            remedy += "recipe.normalise(images) of what afd.load returned"
            raise SettingError(field, "uint8", remedy)
        return images

    @functools.cached_property
    def _devices(self) -> Devices:
        return make_devices("jit", 1)

    def _compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(state: TrainState, batch: Any, axis_name: str | None) -> Any:
            return function(self.plan, state, batch)

        compiled = self._devices.compile(run, donate=False)

        def call(state: TrainState, batch: Any) -> Any:
            # Inside somebody's own jit or grad it is part of that program.
            inside = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((state, batch)))
            return function(self.plan, state, batch) if inside else compiled(state, batch)

        return call

    @functools.cached_property
    def _step(self) -> Callable[..., Any]:
        return self._compiled(train_step)

    @functools.cached_property
    def _forward(self) -> Callable[..., Any]:
        return self._compiled(parts.forward)

    @functools.cached_property
    def _losses(self) -> Callable[..., Any]:
        return self._compiled(parts.losses)

    @functools.cached_property
    def _gradients(self) -> Callable[..., Any]:
        return self._compiled(parts.gradients)

    @functools.cached_property
    def _logits(self) -> Callable[..., Any]:
        return self._compiled(eval_logits)


_FIELDS = ("image", "label", "index", "soft_label", "partner_image", "partner")


def _seeds(rng: Any) -> tuple[int, ...]:
    """The axis of seeds of a key, if it has one; raw keys have an axis of their own."""
    if not isinstance(rng, jax.Array):
        return ()
    return rng.shape if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key) else rng.shape[:-1]


def _checked(plan: Plan, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch as arrays.

    Raises:
      SettingError: without images, or a label of one of the plan's classes for each.
    """
    for field in ("image", "label"):
        if field not in batch:
            remedy = f'give "{field}" in the batch; it has {", ".join(batch) or "nothing"}'
            raise SettingError(f"batch.{field}", None, remedy)
    for field in batch:
        if field not in _FIELDS:
            raise SettingError("batch", field, f"unknown field; {one_of(field, _FIELDS)}")
    arrays = {name: jnp.asarray(value) for name, value in batch.items()}
    given, size = batch["label"], arrays["image"].shape[:1]
    if arrays["label"].shape != size or not jnp.issubdtype(arrays["label"].dtype, jnp.integer):
        found = f"{arrays['label'].dtype} of shape {arrays['label'].shape}"
        raise SettingError("batch.label", found, f"must be integers of shape {size}")
    if arrays["label"].dtype.itemsize < 4:  # the number of classes may not fit
        arrays["label"] = arrays["label"].astype(jnp.int32)
    if "index" in arrays:
        _check_index(batch["index"], size, plan.examples)
    if not isinstance(given, jax.core.Tracer):
        numbers = np.asarray(given)  # as given: JAX's have 32 bits
        for wrong in numbers[(numbers < 0) | (numbers >= plan.classes)][:1]:
            remedy = f"must be a class's number, in [0, {plan.classes})"
            raise SettingError("batch.label", int(wrong), remedy)
    if "soft_label" in arrays:
        wanted = (len(arrays["label"]), plan.classes)
        if arrays["soft_label"].shape != wanted:
            remedy = f"must be probabilities of shape {wanted}"
            raise SettingError("batch.soft_label", arrays["soft_label"].shape, remedy)
        _check_soft_label(plan, batch["soft_label"])
    return arrays


def _check_soft_label(plan: Plan, given: Any) -> None:
    """Raises SettingError for what are no probabilities, or for a method of whole images."""
    field, dtype = "batch.soft_label", jnp.asarray(given).dtype
    if plan.method.whole_images:
        remedy = f"{type(plan.method).__name__} {plan.method.whole_images}; leave it out"
        raise SettingError(field, "given", remedy)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise SettingError(field, str(dtype), "must be floating-point probabilities")
    if not isinstance(given, jax.core.Tracer):
        numbers = np.asarray(given, np.float64)
        right = (numbers >= 0).all(1) & np.isclose(numbers.sum(1), 1, atol=0.01)
        for row in np.flatnonzero(~right)[:1]:
            remedy = "must be probabilities, at least 0 and of sum 1"
            raise SettingError(f"{field}[{row}]", numbers[row].tolist(), remedy)


def _check_index(given: Any, size: tuple[int, ...], examples: int) -> None:
    """Raises SettingError for an example that is not there: JAX would take the last for it."""
    index = jnp.asarray(given)
    if index.shape != size or not jnp.issubdtype(index.dtype, jnp.integer):
        found = f"{index.dtype} of shape {index.shape}"
        raise SettingError("batch.index", found, f"must be integers of shape {size}")
    if examples and not isinstance(given, jax.core.Tracer):
        numbers = np.asarray(given)
        for wrong in numbers[(numbers < 0) | (numbers >= examples)][:1]:
            remedy = f"must be an example's number, in [0, {examples})"
            raise SettingError("batch.index", int(wrong), remedy)


def _by_name(given: Networks, classes: int, field: str, name: str | None = None) -> dict[str, Any]:
    """Modules by name; `name` for all that have none of their own."""
    if isinstance(given, str) or not isinstance(given, Sequence | Mapping):
        raise SettingError(field, given, "must be a list of names and modules, or a dict of them")
    if isinstance(given, Mapping):
        return {own: _module(each, classes) for own, each in given.items()}
    names = numbered([name or _name_of(each) for each in given])
    return {own: _module(each, classes) for own, each in zip(names, given, strict=True)}


def _module(given: Any, classes: int) -> Any:
    return create(given, classes) if isinstance(given, str) else given


def _name_of(given: Any) -> str:
    if isinstance(given, str):
        return given
    maker = given.func if isinstance(given, functools.partial) else given
    return str(getattr(maker, "__name__", type(maker).__name__))
