"""Methods by name. One file a method: a graph and its losses."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from afd_jax.errors import SettingError, one_of
from afd_jax.graph import Graph
from afd_jax.methods.afd import AFD
from afd_jax.methods.base import Method
from afd_jax.methods.independent import Independent

__all__ = ["AFD", "METHODS", "Independent", "Method", "make_method"]

METHODS: dict[str, type[Method]] = {"afd": AFD, "independent": Independent}


def make_method(name: str, graph: Graph, options: Mapping[str, Any]) -> Method:
    """Builds a method from settings.

    Args:
      name: a key of `METHODS`.
      graph: who learns from whom.
      options: fields of that method; the others keep their defaults.

    Raises:
      SettingError: if the method or an option is unknown, or an option out of range.
    """
    if name not in METHODS:
        raise SettingError("method.name", name, one_of(name, METHODS))
    fields = [f.name for f in dataclasses.fields(METHODS[name]) if f.name != "graph"]
    for option, value in options.items():
        if option not in fields:
            raise SettingError(
                f"method.{option}", value, f"unknown to {name}; {one_of(option, fields)}"
            )
    return METHODS[name](graph=graph, **options)
