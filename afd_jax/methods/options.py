"""Options of a method, each with its bounds beside its default."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from afd_jax.errors import SettingError, one_of, require_flag, require_list, require_number

_CHECK = "afd_jax.check"


def _option(default: Any, check: Callable[[str, Any], None]) -> Any:
    return dataclasses.field(default=default, metadata={_CHECK: check})


def number(default: float, **bounds: Any) -> Any:
    """A finite number; bounds as in `errors.require_number`."""
    return _option(default, lambda name, value: require_number(name, value, **bounds))


def numbers(default: tuple[float, ...], *, empty: bool = False, **bounds: Any) -> Any:
    """A list of numbers, each within the bounds."""

    def check(name: str, values: Any) -> None:
        if not (empty and isinstance(values, list | tuple) and not values):
            require_list(name, values)
        for value in values:
            require_number(name, value, **bounds)

    return _option(default, check)


def names(default: tuple[str, ...]) -> Any:
    """A list of nodes' names; which there are, the method's `edges` may check."""

    def check(name: str, values: Any) -> None:
        if not isinstance(values, list | tuple) or not all(isinstance(v, str) for v in values):
            raise SettingError(name, values, "must be a list of names, ('resnet32',)")

    return _option(default, check)


def flag(default: bool) -> Any:
    """True or False."""
    return _option(default, require_flag)


def choice(default: str, names: Any) -> Any:
    """One of some names."""
    names = tuple(names)

    def check(name: str, value: Any) -> None:
        if value not in names:
            raise SettingError(name, value, one_of(value, names))

    return _option(default, check)


def head(default: str) -> Any:
    """A small network: the default by its name, a module, or "package.module:Class"."""

    def check(name: str, value: Any) -> None:
        if isinstance(value, str) and value != default and ":" not in value:
            remedy = f"must be {default!r}, or 'package.module:Class' of one's own"
            raise SettingError(name, value, remedy)

    return _option(default, check)


def check(own: Any) -> None:
    """Raises SettingError for an option that is out of bounds; lists become tuples.

    A block of options, such as a critic, may be given as a mapping.
    """
    where = ".".join(filter(None, ["method", getattr(own, "block", "")]))
    known = {field.name for field in dataclasses.fields(own)}
    for name, kind in inspect.get_annotations(type(own)).items():
        if name not in known and "ClassVar" not in str(kind):
            remedy = f"is no option: decorate {type(own).__name__} with "
            raise SettingError(name, str(kind), remedy + "@dataclasses.dataclass(frozen=True)")
    for field in dataclasses.fields(own):
        value, block = getattr(own, field.name), type(field.default)
        name = f"{where}.{field.name}"
        if dataclasses.is_dataclass(block):
            if isinstance(value, Mapping):
                value = make(block, value, field.name, name)
            if not isinstance(value, block):
                raise SettingError(
                    name, value, f"must have only the options {', '.join(of(block))}"
                )
            object.__setattr__(own, field.name, value)
        elif _CHECK in field.metadata:
            field.metadata[_CHECK](name, value)
            if isinstance(value, list):
                object.__setattr__(own, field.name, tuple(value))


def of(choice: Any) -> dict[str, Any]:
    """The options of a method or a block (a class, or one with values), with their values."""

    def value(field: dataclasses.Field) -> Any:
        own = field.default if isinstance(choice, type) else getattr(choice, field.name)
        return of(own) if dataclasses.is_dataclass(own) else own

    return {field.name: value(field) for field in dataclasses.fields(choice)}


def make(choice: type, given: Mapping[str, Any], name: str, where: str = "method") -> Any:
    """Builds a method or a block from options; others keep their defaults.

    Args:
      choice: the class.
      given: options by name.
      name: what the choice is called in errors.
      where: what its options are called in errors.

    Raises:
      SettingError: for an option that the choice does not have, or out of its bounds.
    """
    known = of(choice)
    for option, value in given.items():
        if option not in known:
            raise SettingError(
                f"{where}.{option}", value, f"unknown to {name}; {one_of(option, known)}"
            )
    return choice(**given)
