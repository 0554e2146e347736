"""Methods by name. One file a method: a graph and its losses."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from afd_jax import errors
from afd_jax.runs.choices import require_options
from afd_jax.errors import SettingError, one_of
from afd_jax.methods.afd import AFD
from afd_jax.methods.ai_kd import AIKD
from afd_jax.methods.alignment import Alignment
from afd_jax.methods.at import AT
from afd_jax.methods.method import Method
from afd_jax.methods.cl_ilr import CLILR
from afd_jax.methods.cs_kd import CSKD
from afd_jax.methods.dml import DML
from afd_jax.methods.feed import FEED
from afd_jax.methods.fitnet import FitNet
from afd_jax.methods.ft import FT
from afd_jax.methods.independent import Independent
from afd_jax.methods.kd import KD
from afd_jax.methods.kdcl import KDCL
from afd_jax.methods.okddip import OKDDip
from afd_jax.methods.one import ONE
from afd_jax.methods.paraphraser import Paraphraser
from afd_jax.methods.pcl import PCL
from afd_jax.methods.ps_kd import PSKD
from afd_jax.methods.tf_kd import TFKD

__all__ = [
    "AFD",
    "AIKD",
    "AT",
    "CLILR",
    "CSKD",
    "DML",
    "FEED",
    "FT",
    "KD",
    "KDCL",
    "METHODS",
    "ONE",
    "PCL",
    "PSKD",
    "TFKD",
    "Alignment",
    "FitNet",
    "Independent",
    "Method",
    "OKDDip",
    "Paraphraser",
    "make_method",
    "method_options",
]

METHODS: dict[str, type[Method]] = {
    "afd": AFD,
    "ai_kd": AIKD,
    "alignment": Alignment,
    "at": AT,
    "cl_ilr": CLILR,
    "cs_kd": CSKD,
    "dml": DML,
    "feed": FEED,
    "fitnet": FitNet,
    "ft": FT,
    "independent": Independent,
    "kd": KD,
    "kdcl": KDCL,
    "okddip": OKDDip,
    "one": ONE,
    "paraphraser": Paraphraser,
    "pcl": PCL,
    "ps_kd": PSKD,
    "tf_kd": TFKD,
}


def make_method(
    name: str,
    graph: Any,
    networks: Sequence[str],
    options: Mapping[str, Any],
    teachers: int = 0,
) -> Method:
    """Builds a method from settings.

    Args:
      name: a key of `METHODS`.
      graph: a shape or edges, as in `Method.from_settings`.
      networks: their names.
      options: fields of that method; the others keep their defaults.
      teachers: how many frozen teachers there are.

    Raises:
      SettingError: if the method or an option is unknown, or something does not fit.
    """
    if name not in METHODS:
        raise SettingError("method.name", name, one_of(name, METHODS))
    with errors.within("method"):
        require_options(name, options, method_options(name))
    require_teachers(name, teachers, "teachers", teachers)
    return METHODS[name].from_settings(graph, networks, options, teachers)


def require_teachers(name: str, count: int, field: str, value: Any) -> None:
    """Raises SettingError, for a field and its value, unless a method takes so many teachers."""
    if name not in METHODS:
        return
    least, most = METHODS[name].teacher_count
    if count < least:
        remedy = f"{name} needs a frozen teacher: the folder of a finished run, or the name of a "
        raise SettingError(field, value, remedy + "network to train first")
    if most is not None and count > most:
        several = f"at most {most}" if most else "no"
        raise SettingError(field, value, f"{name} takes {several} frozen teachers")


def method_options(name: str) -> dict[str, Any]:
    """The fields of a method that a setting may give, with their defaults."""
    fields = dataclasses.fields(METHODS[name])
    own = ("graph", "teachers")  # what the settings of the networks say
    return {field.name: field.default for field in fields if field.name not in own}
