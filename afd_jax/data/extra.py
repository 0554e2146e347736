"""Packages that only some uses need."""

import importlib
import logging
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


class Quiet(logging.Filter):
    """Keeps what a package logs through absl's logger to itself, below a level."""

    def __init__(self, package: str, level: int):
        super().__init__()
        self._part, self._level = f"/{package}/", level

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it may be seen."""
        return self._part not in record.pathname or record.levelno >= self._level
