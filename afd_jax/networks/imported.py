"""Objects of other packages by name: networks, heads and methods of one's own."""

import functools
import importlib
import inspect
from typing import Any

from flax import nnx

from afd_jax.errors import SettingError, first_line


def import_object(field: str, name: str) -> Any:
    """The object that "package.module:Name" names.

    Args:
      field: what the name is called in errors, "networks".
      name: of a module that can be imported, and of what stands in it; "Name" may have dots.

    Raises:
      SettingError: if there is no such thing, or importing it fails.

    >>> import_object("networks", "afd_jax.networks.resnet:CifarResNet").__name__
    'CifarResNet'
    """
    module, _, attribute = str(name).partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever the module raises while it is imported
        remedy = f"could not import it ({first_line(error)}); give 'package.module:Name'"
        raise SettingError(field, name, remedy) from error
    return found


def build(field: str, given: Any, **arguments: Any) -> Any:
    """A module of one's own.

    Args:
      field: what it is called in errors.
      given: "package.module:Class"; what is no text is returned as it is.
      **arguments: of the class; an NNX class gets `rngs` later, too.

    Raises:
      SettingError: if it cannot be imported or built.
    """
    if not isinstance(given, str):
        return given
    make = import_object(field, given)
    if inspect.isclass(make) and issubclass(make, nnx.Module):
        return functools.partial(make, **arguments)
    try:
        return make(**arguments)
    except Exception as error:
        words = ", ".join(arguments) or "nothing"
        remedy = f"could not build it from {words} ({first_line(error)})"
        raise SettingError(field, given, remedy) from error
