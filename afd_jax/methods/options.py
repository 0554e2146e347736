"""Options of a method, each with its bounds beside its default."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from afd_jax.errors import SettingError, one_of, require_flag, require_list, require_number, within

_CHECK = "afd_jax.check"


def _option(default: Any, check: Callable[[str, Any], None]) -> Any:
    return dataclasses.field(default=default, metadata={_CHECK: check})


def number(default: float, **bounds: Any) -> Any:
    """A finite number; bounds as in `errors.require_number`."""
    return _option(default, lambda name, value: require_number(name, value, **bounds))


def numbers(default: tuple[float, ...], *, empty: bool = False, **bounds: Any) -> Any:
    """A list of numbers, each within the bounds."""

    def check(name: str, values: Any) -> None:
        if not (empty and values == ()):
            require_list(name, values)
        for value in values:
            require_number(name, value, **bounds)

    return _option(default, check)


def flag(default: bool) -> Any:
    """True or False."""
    return _option(default, require_flag)


def choice(default: str, names: Any) -> Any:
    """One of some names."""

    def check(name: str, value: Any) -> None:
        if value not in names:
            raise SettingError(name, value, one_of(value, names))

    return _option(default, check)


def check(own: Any) -> None:
    """Raises SettingError for an option that is out of bounds; lists become tuples.

    Blocks of options, such as a critic's, may be given as mappings.
    """
    for field in dataclasses.fields(own):
        value = getattr(own, field.name)
        block = type(field.default)
        with within("method"):
            if dataclasses.is_dataclass(block) and not isinstance(value, block):
                if not isinstance(value, Mapping):
                    remedy = f"must hold the options {', '.join(of(block))}"
                    raise SettingError(field.name, value, remedy)
                object.__setattr__(own, field.name, make(block, value, field.name))
            elif _CHECK in field.metadata:
                field.metadata[_CHECK](_name(own, field.name), value)
                if isinstance(value, list):
                    object.__setattr__(own, field.name, tuple(value))


def _name(own: Any, field: str) -> str:
    prefix = getattr(own, "block", "")  # a block inside a method says where it is
    return f"{prefix}.{field}" if prefix else field


def of(choice: type) -> dict[str, Any]:
    """The options of a method or a block, with their defaults; blocks as dicts.

    Raises nothing; what has no default is left out.
    """
    return {
        field.name: of(type(field.default))
        | {f.name: getattr(field.default, f.name) for f in dataclasses.fields(field.default)}
        if dataclasses.is_dataclass(field.default)
        else field.default
        for field in dataclasses.fields(choice)
    }


def make(choice: type, given: Mapping[str, Any], name: str) -> Any:
    """Builds a method or a block from options; others keep their defaults.

    Raises:
      SettingError: for an option that the choice does not have, or out of its bounds.
    """
    known = of(choice)
    for option, value in given.items():
        if option not in known:
            raise SettingError(option, value, f"unknown to {name}; {one_of(option, known)}")
    return choice(**given)
