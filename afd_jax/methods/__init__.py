"""Methods by name. One file a method: a graph and its losses."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from afd_jax import errors
from afd_jax.choices import require_options
from afd_jax.errors import SettingError, one_of
from afd_jax.methods.afd import AFD
from afd_jax.methods.alignment import Alignment
from afd_jax.methods.base import Method
from afd_jax.methods.cl_ilr import CLILR
from afd_jax.methods.dml import DML
from afd_jax.methods.independent import Independent
from afd_jax.methods.kdcl import KDCL
from afd_jax.methods.okddip import OKDDip
from afd_jax.methods.one import ONE
from afd_jax.methods.pcl import PCL

__all__ = [
    "AFD",
    "CLILR",
    "DML",
    "KDCL",
    "METHODS",
    "ONE",
    "PCL",
    "Alignment",
    "Independent",
    "Method",
    "OKDDip",
    "make_method",
    "method_options",
]

METHODS: dict[str, type[Method]] = {
    "afd": AFD,
    "alignment": Alignment,
    "cl_ilr": CLILR,
    "dml": DML,
    "independent": Independent,
    "kdcl": KDCL,
    "okddip": OKDDip,
    "one": ONE,
    "pcl": PCL,
}


def make_method(
    name: str, graph: Any, networks: Sequence[str], options: Mapping[str, Any]
) -> Method:
    """Builds a method from settings.

    Args:
      name: a key of `METHODS`.
      graph: a shape or edges, as in `Method.from_settings`.
      networks: their names.
      options: fields of that method; the others keep their defaults.

    Raises:
      SettingError: if the method or an option is unknown, or something does not fit.
    """
    if name not in METHODS:
        raise SettingError("method.name", name, one_of(name, METHODS))
    with errors.within("method"):
        require_options(name, options, method_options(name))
    return METHODS[name].from_settings(graph, networks, options)


def method_options(name: str) -> dict[str, Any]:
    """The fields of a method that a setting may give, with their defaults."""
    fields = dataclasses.fields(METHODS[name])
    return {field.name: field.default for field in fields if field.name != "graph"}
