"""Settings that name one of several choices and hold the options of that choice.

{"name": "adam", "b1": 0.9, ...}: the options are the keyword-only arguments of the function that
the name stands for.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from afd_jax import methods
from afd_jax.engine.build import numbered
from afd_jax.errors import SettingError, one_of
from afd_jax.methods import Method
from afd_jax.networks import create


def keyword_options(function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only arguments of a function, with their defaults.

    >>> def adam(rate, *, b1=0.9): ...
    >>> keyword_options(adam)
    {'b1': 0.9}
    """
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def require_options(name: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raises SettingError for an option that the choice `name` does not have."""
    for option, value in options.items():
        if option not in known:
            raise SettingError(option, value, f"unknown to {name}; {one_of(option, known)}")


def call(field: str, choices: Mapping[str, Any], options: Mapping[str, Any], *args: Any) -> Any:
    """Calls the choice that `options["name"]` names, with `args` and the other options.

    Raises:
      SettingError: if the choice or an option is unknown.
    """
    others = dict(options)
    name = others.pop("name", None)
    if name not in choices:
        raise SettingError(field, name, one_of(name, choices))
    require_options(name, others, keyword_options(choices[name]))
    return choices[name](*args, **others)


def make_method(settings: Mapping[str, Any]) -> Method:
    """The method that a block of settings names, with its options.

    Raises:
      SettingError: if it or an option is unknown, or out of its bounds.
    """
    given = settings.to_dict() if isinstance(settings, ml_collections.ConfigDict) else settings
    options = dict(given)
    return methods.make(options.pop("name", ""), options)


def named_networks(names: list[str], classes: int) -> dict[str, Any]:
    """Modules by the names of their nodes."""
    return {own: create(name, classes) for own, name in zip(numbered(names), names, strict=True)}
