"""Config files by name: in a wheel they lie in afd_jax/configs, in the repository in configs/."""

import ast
import pathlib

from afd_jax.errors import SettingError, one_of

_PACKAGE = pathlib.Path(__file__).parents[1]


def configs_folder() -> pathlib.Path:
    """Where the project's configs are: beside the package's rooms, or else beside the package."""
    inside = _PACKAGE / "configs"
    return inside if inside.is_dir() else _PACKAGE.parent / "configs"


def list_configs() -> dict[str, str]:
    """The project's configs by name, each with the first line of its docstring."""
    return {path.stem: _first_line(path) for path in sorted(configs_folder().glob("*.py"))}


def find_config(name: str) -> pathlib.Path:
    """The file of a config.

    Args:
      name: a path, which wins, or the name of one of the project's configs.

    Raises:
      SettingError: if there is neither.

    >>> find_config("digits_afd").name
    'digits_afd.py'
    """
    path = pathlib.Path(name)
    if path.is_file():
        return path
    known = configs_folder() / f"{name.removesuffix('.py')}.py"
    if name and path.name == name and known.is_file():
        return known
    remedy = "no such file, and no config of this name; "
    raise SettingError("--config", name, remedy + one_of(path.stem, list_configs()))


def _first_line(path: pathlib.Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]
