"""Linen and NNX modules behind one small protocol of pure functions: `init`, `apply`, `with_axis`.

Variables are plain nested dicts of arrays: {"params": ..., "batch_stats": ..., ...}. All but
"params" are the network's statistics.
"""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

from afd_jax.errors import SettingError

Variables = Mapping[str, Any]
Statistics = dict[str, Any]


@runtime_checkable
class Functional(Protocol):
    """What the engine asks of a network or a head; equal ones are traced once, so it is hashable.

    Attributes:
      module: what is behind it, for people.
      name: of its class, for messages.
    """

    @property
    def module(self) -> Any: ...  # noqa: D102

    @property
    def name(self) -> str: ...  # noqa: D102

    def init(self, rng: jax.Array, x: jax.Array) -> Variables:
        """The variables that it starts from, for an input like `x`."""
        ...

    def apply(
        self, variables: Variables, x: jax.Array, *, train: bool, rngs: Mapping[str, jax.Array] = {}
    ) -> tuple[Any, Statistics]:
        """What it returns for `x`, and its statistics: updated if `train`, else as they were.

        Args:
          variables: as from `init`.
          x: one array.
          train: BatchNorm takes the batch's own statistics, Dropout drops.
          rngs: {"dropout": key}, where it draws random numbers in training.
        """
        ...

    def with_axis(self, axis_name: str) -> "Functional":
        """The same with BatchNorm synchronised over that device axis."""
        ...

    def require_synchronised(self, statistics: Any) -> None:
        """Raises SettingError if statistics like these cannot be synchronised as asked for."""
        ...


def functional(module: Any, field: str = "networks") -> Functional:
    """Wraps a module.

    Args:
      module: a Linen module; an NNX module, whose own values are what `init` returns; or what makes
        an NNX module when it is called with `rngs=...`: a class, or `functools.partial(Class,
        classes=10)`. What is wrapped already is returned as it is.
      field: what the module is called in errors.

    Raises:
      SettingError: for anything else, or a module that cannot be hashed.
    """
    if isinstance(module, Functional):
        return module
    wrapped: Functional
    if isinstance(module, nn.Module):
        wrapped = Linen(module, field)
    elif isinstance(module, nnx.Module):
        wrapped = NNX(Copies(module, nnx.clone(module)), field)
    elif makes_nnx(module):
        wrapped = NNX(module, field)
    else:
        remedy = "must be a Linen module, an NNX module or what makes one when called with "
        remedy += "rngs=...: functools.partial(Class, classes=10)"
        if inspect.isclass(module) and issubclass(module, nn.Module):
            remedy = f"is a class; give a module, {module.__name__}(classes=10)"
        raise SettingError(field, module, remedy)
    try:
        hash(wrapped)
    except TypeError as error:
        remedy = "has a field that cannot be hashed; give a tuple instead of a list"
        raise SettingError(field, wrapped.name, remedy) from error
    return wrapped


@dataclasses.dataclass(frozen=True)
class Linen:
    """A `flax.linen.Module` that is called with one array and `train`.

    Attributes:
      module: its fields are hashable.
      field: what it is called in errors.
      axis_name: device axis asked for by `with_axis`.
    """

    module: nn.Module
    field: str = dataclasses.field(default="networks", compare=False)
    axis_name: str | None = None

    @property
    def name(self) -> str:
        """Of the class."""
        return type(self.module).__name__

    def init(self, rng: jax.Array, x: jax.Array) -> Variables:
        """As in `Functional`."""
        return nn.meta.unbox(self.module.init(rng, x, train=False))

    def apply(
        self, variables: Variables, x: jax.Array, *, train: bool, rngs: Mapping[str, jax.Array] = {}
    ) -> tuple[Any, Statistics]:
        """As in `Functional`."""
        statistics = {name: own for name, own in variables.items() if name != "params"}
        mutable = [*statistics] if train else []
        result, updated = self.module.apply(
            variables, x, train=train, mutable=mutable, rngs=dict(rngs)
        )
        return result, {**statistics, **updated}

    def with_axis(self, axis_name: str) -> "Linen":
        """As in `Functional`, by the module's field `axis_name`."""
        module = self.module.clone(axis_name=axis_name) if self._has_axis else self.module
        return dataclasses.replace(self, module=module, axis_name=axis_name)

    def require_synchronised(self, statistics: Any) -> None:
        """As in `Functional`: its statistics need a field `axis_name` to be synchronised by."""
        if self.axis_name and not self._has_axis and jax.tree.leaves(statistics):
            remedy = (
                "has BatchNorm statistics but no field 'axis_name' to synchronise them over "
                "devices; add `axis_name: str | None = None` and pass it to nn.BatchNorm"
            )
            raise SettingError(self.field, self.name, remedy)

    @property
    def _has_axis(self) -> bool:
        return hasattr(self.module, "axis_name")


@dataclasses.dataclass(frozen=True, eq=False)
class NNX:
    """A `flax.nnx.Module` that is called with one array; its own train() and eval() are switched.

    Statistics are all its variables but parameters and the states of random numbers; those begin
    anew at each call, from the key "dropout".

    Attributes:
      make: called with `rngs=nnx.Rngs(key)`, makes the module.
      field: what it is called in errors.
      axis_name: device axis over which every `nnx.BatchNorm` is synchronised.
    """

    make: Callable[..., nnx.Module]
    field: str = "networks"
    axis_name: str | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NNX) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def module(self) -> Any:
        """The module itself, if one was given; else what makes it."""
        return self.make.module if isinstance(self.make, Copies) else self.make

    @property
    def name(self) -> str:
        """Of the class, or of the function that makes the module."""
        if isinstance(self.make, Copies):
            return type(self.make.module).__name__
        maker = _unwrapped(self.make)
        return getattr(maker, "__name__", type(maker).__name__)

    def init(self, rng: jax.Array, x: jax.Array) -> Variables:
        """As in `Functional`."""
        _, params, _, rest = _split(self.make(rngs=nnx.Rngs(rng)))
        variables: dict[str, Any] = {"params": {}}
        for path, variable in nnx.to_flat_state(params):
            _put(variables["params"], path, variable.get_value())
        for path, variable in nnx.to_flat_state(rest):
            _put(variables.setdefault(_collection(variable), {}), path, variable.get_value())
        return variables

    def apply(
        self, variables: Variables, x: jax.Array, *, train: bool, rngs: Mapping[str, jax.Array] = {}
    ) -> tuple[Any, Statistics]:
        """As in `Functional`.

        Raises:
          ValueError: if the module draws random numbers in training and has no key.
        """
        # The structure without values, which are in `variables`.
        graph, params, random, rest = _split(nnx.eval_shape(lambda: self.make(rngs=nnx.Rngs(0))))
        # Without a key nothing is drawn: the states are constants, and leave no trace in a program.
        given = "dropout" in rngs
        with contextlib.nullcontext() if given else jax.ensure_compile_time_eval():
            random = _reseeded(random, rngs["dropout"] if given else jax.random.key(0))
        module = nnx.merge(
            graph,
            _filled(params, lambda path, _: _get(variables["params"], path)),
            _filled(rest, lambda path, own: _get(variables[_collection(own)], path)),
            random,
        )
        for _, part in nnx.iter_graph(module):
            if isinstance(part, nnx.BatchNorm) and self.axis_name:
                part.axis_name = self.axis_name
        module.train() if train else module.eval()
        before = _counts(module)
        result = module(x)
        if "dropout" not in rngs and any(
            a is not b for a, b in zip(before, _counts(module), strict=True)
        ):
            raise ValueError(f"{self.name} draws random numbers and was given no key for them")
        statistics = {name: own for name, own in variables.items() if name != "params"}
        if train:
            statistics = {name: {} for name in statistics}
            for path, variable in nnx.to_flat_state(_split(module)[3]):
                if (collection := _collection(variable)) in statistics:
                    _put(statistics[collection], path, variable.get_value())
        return result, statistics

    def with_axis(self, axis_name: str) -> "NNX":
        """As in `Functional`."""
        return dataclasses.replace(self, axis_name=axis_name)

    def require_synchronised(self, statistics: Any) -> None:
        """As in `Functional`; every `nnx.BatchNorm` can be."""

    @property
    def _key(self) -> Any:
        """What makes two equal: partials are compared by what they call, not by identity."""
        make: Any = self.make
        if isinstance(make, functools.partial):
            make = (make.func, make.args, frozenset(make.keywords.items()))
        return make, self.axis_name


@dataclasses.dataclass(frozen=True, eq=False)
class Copies:
    """Makes a module that is there already, with its values, whatever the key.

    Two of them are never equal: compiled programs hold the values, which may have changed between.

    Attributes:
      module: an NNX module.
      values: a copy, as it was when it was wrapped.
    """

    module: nnx.Module
    values: nnx.Module

    def __call__(self, *, rngs: Any) -> nnx.Module:
        """Another copy."""
        return nnx.clone(self.values)


def _unwrapped(make: Any) -> Any:
    """What a partial calls, through any number of them."""
    while isinstance(make, functools.partial):
        make = make.func
    return make


def makes_nnx(make: Any) -> bool:
    """Whether it makes an NNX module when it is called with `rngs=...`, as far as one can see."""
    maker = _unwrapped(make)
    if inspect.isclass(maker):
        return issubclass(maker, nnx.Module)
    try:
        return "rngs" in inspect.signature(make).parameters
    except (TypeError, ValueError):  # not callable, or written in C
        return False


def blank_images(shape: tuple[int, int, int]) -> jax.Array:
    """Two images of zeros, [2, height, width, channels]: enough to trace a network."""
    return jnp.zeros((2, *shape), jnp.float32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def draw(
    network: Functional, image_shape: tuple[int, int, int], start: int, rng: jax.Array
) -> Variables:
    """A network's variables. Its key depends on `start` alone: a twin starts as its original."""
    key = jax.random.fold_in(jax.random.fold_in(rng, 0), start)
    return network.init(key, blank_images(image_shape))


@functools.partial(jax.jit, static_argnames=("network", "train"))
def run(
    network: Functional,
    variables: Variables,
    images: jax.Array,
    rngs: Mapping[str, jax.Array],
    train: bool,
) -> tuple[Any, Statistics]:
    """`network.apply`; equal networks are traced once."""
    return network.apply(variables, images, train=train, rngs=rngs)


def forget_traces() -> None:
    """Lets networks be traced anew: in a notebook, a function that they call may have changed."""
    traced: Any
    for traced in (draw, run):
        traced.clear_cache()


def _split(module: nnx.Module) -> tuple[Any, Any, Any, Any]:
    """(structure, parameters, states of random numbers, the rest)."""
    parts: Any = nnx.split(module, nnx.Param, nnx.RngState, ...)
    graph, params, random, rest = parts
    return graph, params, random, rest


def _collection(variable: nnx.Variable) -> str:
    """The name of a kind of variables, as Linen has it: "batch_stats"."""
    return nnx.variable_name_from_type(type(variable), allow_register=True)


def _put(tree: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    """Sets a leaf; positions in lists become strings, as keys of a state must be."""
    *parents, last = map(str, path)
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[last] = value


def _get(tree: Mapping[str, Any], path: tuple[Any, ...]) -> Any:
    return functools.reduce(lambda own, key: own[str(key)], path, tree)


def _filled(state: Any, value: Callable[[tuple[Any, ...], nnx.Variable], Any]) -> Any:
    """The state with another value for each variable."""
    flat = [(path, own.replace(value(path, own))) for path, own in nnx.to_flat_state(state)]
    return nnx.from_flat_state(flat)


def _reseeded(state: Any, rng: jax.Array) -> Any:
    """States of random numbers that begin with this key, each with one of its own."""
    keys = iter(range(len(jax.tree.leaves(state))))

    def begin(_: Any, own: nnx.Variable) -> jax.Array:
        shape = own.get_value().shape
        if isinstance(own, nnx.RngKey):
            return jax.random.split(jax.random.fold_in(rng, next(keys)), shape)
        return jnp.zeros(shape, own.get_value().dtype)

    return _filled(state, begin)


def _counts(module: nnx.Module) -> list[Any]:
    """How often each stream of random numbers was asked."""
    return [own.get_value() for _, own in nnx.to_flat_state(nnx.state(module, nnx.RngCount))]
