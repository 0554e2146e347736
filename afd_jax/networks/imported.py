"""Objects of other packages by name: networks, heads and methods of one's own."""

import importlib
from typing import Any

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
