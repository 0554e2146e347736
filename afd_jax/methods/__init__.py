"""Methods by name. One file a method: what the nodes and edges of its graph carry.

A method of one's own is a `Method` anywhere, named as "package.module:Class".
"""

import importlib
from typing import TYPE_CHECKING, Any

from afd_jax.errors import SettingError, one_of
from afd_jax.methods import options
from afd_jax.methods.method import Method, Terms, View
from afd_jax.networks.imported import import_object

if TYPE_CHECKING:
    from collections.abc import Mapping

_CLASSES = {
    "afd": "AFD",
    "ai_kd": "AIKD",
    "alignment": "Alignment",
    "at": "AT",
    "block_kd": "BlockKD",
    "cl_ilr": "CLILR",
    "crd": "CRD",
    "cs_kd": "CSKD",
    "ctkd": "CTKD",
    "dcm": "DCM",
    "dist": "DIST",
    "dkd": "DKD",
    "dml": "DML",
    "ensemble_kd": "EnsembleKD",
    "feed": "FEED",
    "fitnet": "FitNet",
    "ft": "FT",
    "independent": "Independent",
    "kd": "KD",
    "kdcl": "KDCL",
    "mcl": "MCL",
    "mgd": "MGD",
    "mixed": "Mixed",
    "okddip": "OKDDip",
    "one": "ONE",
    "pcl": "PCL",
    "pkt": "PKT",
    "ps_kd": "PSKD",
    "reviewkd": "ReviewKD",
    "rkd": "RKD",
    "sp": "SP",
    "switokd": "SwitOKD",
    "tf_kd": "TFKD",
    "vid": "VID",
}
NAMES = tuple(_CLASSES)

__all__ = ["NAMES", "Method", "Terms", "View", "find", "make", *_CLASSES.values()]


def __getattr__(name: str) -> Any:
    for module, known in _CLASSES.items():
        if known == name:
            return getattr(importlib.import_module(f"afd_jax.methods.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def find(name: str) -> type[Method]:
    """The class of a method.

    Args:
      name: one of `NAMES`, or "package.module:Class".

    Raises:
      SettingError: if there is none.

    >>> find("afd").__name__
    'AFD'
    """
    if isinstance(name, str) and name in _CLASSES:
        return __getattr__(_CLASSES[name])
    if ":" not in str(name):
        remedy = one_of(name, NAMES) + ", or 'package.module:Class'"
        raise SettingError("method.name", name, remedy)
    found = import_object("method.name", name)
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise SettingError("method.name", name, "must be a subclass of afd_jax.methods.Method")
    return found


def make(name: str, given: "Mapping[str, Any]") -> Method:
    """Builds a method from a name and options; the others keep their defaults.

    Raises:
      SettingError: if the method or an option is unknown, or out of its bounds.
    """
    return options.make(find(name), given, name)
