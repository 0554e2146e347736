"""Packages that only some uses need."""

import importlib
from typing import Any

from afd_jax.errors import SettingError


def need(module: str, field: str, value: Any, extra: str = "train") -> Any:
    """Imports a package of an extra.

    Raises:
      SettingError: for the field that asks for it, if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        remedy = f"needs {module.partition('.')[0]}: pip install 'afd-jax[{extra}]'"
        raise SettingError(field, value, remedy) from error
