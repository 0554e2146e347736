"""Config files as they are asked for on a command line: --config=FILE --config.key=value ..."""

import copy
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from afd_jax.errors import SettingError, one_of, shortened
from afd_jax.runs.choices import keyword_options
from afd_jax.runs.configs import find_config
from afd_jax.runs.settings import OPEN, base_config

# What an optimizer's block keeps when it gets another name.
_SHARED = ("learning_rate", "weight_decay", "decay", "clip", "schedule", "warmup")
_ALWAYS = ("learning_rate", "schedule")  # the others are options, which a choice may not have


def read_config(file: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """Loads a config file and applies overrides.

    Args:
      file: name of a config of this package, or path of a Python file with `get_config`; and an
        argument for it behind a colon.
      overrides: as on a command line, `--config.key=value`.

    Raises:
      SettingError: if the file is missing or broken, a key is unknown or a value of another type.
    """
    from absl import flags
    from ml_collections import config_flags

    path, colon, argument = file.partition(":")
    file = f"{find_config(path)}{colon}{argument}"

    def parse(define: Any, source: Any, arguments: Sequence[str]) -> ml_collections.ConfigDict:
        values, argv = flags.FlagValues(), [sys.argv[0], *arguments]
        define("config", source, flag_values=values, sys_argv=argv)
        values(argv)
        return values.config

    try:
        config = parse(config_flags.DEFINE_config_file, None, [f"--config={file}"])
    except Exception as error:
        remedy = f"get_config failed: {_last_line(error)}"
        raise SettingError("--config", file, remedy) from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise SettingError("--config", file, "get_config must return a ConfigDict")
    config = fill_options(config, _chosen(overrides))
    for override in overrides:
        _check_override(config, override)
    emptied = _emptied(config, overrides)
    # The last of each field alone: ml_collections would add up what tuples are given.
    last_of = {_parts(text)[0]: text for text in overrides}
    overrides = [text for path, text in last_of.items() if path not in emptied]
    for path in emptied:
        parent, _, last = path.rpartition(".")
        _at(config, parent)[last] = None
    try:
        return parse(config_flags.DEFINE_config_dict, config, overrides)
    except Exception as error:
        reason = _last_line(error)
        named = re.match(r"flag --(config\.[\w.]+)=(.*?): (.*)", reason)
        field, value, reason = named.groups() if named else ("config", " ".join(overrides), reason)
        raise SettingError(field, value, shortened(reason)) from error


def fill_options(
    config: ml_collections.ConfigDict,
    chosen: Mapping[str, str] | None = None,
    *,
    imports: bool = True,
) -> ml_collections.ConfigDict:
    """Gives every block that names a choice all options of that choice, so that all can be set.

    Args:
      config: is not changed.
      chosen: new names by path, {"optimizers.feature": "sgd"}. A block that gets another name keeps
        what all choices have (learning rate, weight decay) and starts from the defaults else.
      imports: import a method of one's own for its options; False for settings that a run's folder
        holds, which may be a stranger's.

    Returns:
      A copy.
    """
    config = copy.deepcopy(config)
    for path in OPEN:
        # A schedule may be missing from its optimizer's block; other mistakes are found later.
        above, _, last = path.rpartition(".")
        parent = _at(config, above)
        if not isinstance(parent, ml_collections.ConfigDict):
            continue
        missing = {"name": "constant"} if last == "schedule" else None
        block = parent.get(last, missing and ml_collections.ConfigDict(missing))
        if not isinstance(block, ml_collections.ConfigDict):
            continue
        name = (chosen or {}).get(path, block.get("name"))
        defaults = _defaults(path, name, imports)
        if defaults is None:
            continue
        own = block.to_dict()
        if name != block.get("name"):
            own = {k: own[k] for k in _SHARED if k in own and (k in defaults or k in _ALWAYS)}
        with config.unlocked():
            parent[last] = ml_collections.ConfigDict(
                _typed({**_merged(defaults, own), "name": name})
            )
    return config


def as_json(config: ml_collections.ConfigDict, *, imports: bool = True) -> dict[str, Any]:
    """All settings as config.json has them: every option of every choice, at the value in use."""
    filled = fill_options(config, imports=imports)
    content: dict[str, Any] = json.loads(filled.to_json_best_effort())
    return content


def _at(config: Any, path: str) -> Any:
    """The block at a path, None if there is none."""
    for key in filter(None, path.split(".")):
        config = config.get(key) if isinstance(config, ml_collections.ConfigDict) else None
    return config


def _defaults(path: str, name: Any, imports: bool) -> dict[str, Any] | None:
    from afd_jax import methods
    from afd_jax.engine.optimizers import OPTIMIZERS, SCHEDULES
    from afd_jax.methods import options

    if path == "method":
        module, own, _ = str(name).partition(":")
        if own and not imports and module not in sys.modules:
            return None
        try:
            return options.of(methods.find(name))
        except SettingError:  # named where the method is built
            return None
    choices: Mapping[str, Any] = SCHEDULES if path.endswith(".schedule") else OPTIMIZERS
    return keyword_options(choices[name]) if name in choices else None


def _typed(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, None among them as a field that takes a value of any type."""
    return {
        key: _typed(value)
        if isinstance(value, Mapping)
        else placeholder(object)
        if value is None
        else value
        for key, value in options.items()
    }


def _merged(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults with what is given in their place, block by block."""
    merged = {**defaults, **own}
    for key, value in own.items():
        if isinstance(value, Mapping) and isinstance(defaults.get(key), Mapping):
            merged[key] = _merged(defaults[key], value)
    return merged


def _chosen(overrides: Sequence[str]) -> dict[str, str]:
    """The names that overrides choose, by the path of their block."""
    found = (re.fullmatch(r"--?config\.([\w.]+)\.name=(.*)", text) for text in overrides)
    return {match.group(1): match.group(2) for match in found if match}


def _emptied(config: ml_collections.ConfigDict, overrides: Sequence[str]) -> set[str]:
    """The fields whose last override is None, which ml_collections reads as any other word.

    Raises:
      SettingError: for None in a field that must have a value.
    """
    given = [_parts(text) for text in overrides]
    for path, value in given:
        if value == "None" and not _optional(config, path):
            raise SettingError(f"config.{path}", None, "this field must have a value")
    return {path for path, value in dict(given).items() if value == "None"}


def _optional(config: ml_collections.ConfigDict, path: str) -> bool:
    """Whether a field may be None: it is so in the base settings, or by its choice's default."""
    block, _, field = path.rpartition(".")
    while block and block not in OPEN:  # the block of a choice may have blocks inside
        block, _, first = block.rpartition(".")
        field = f"{first}.{field}"
    if not block:
        return _at(base_config(), field) is None
    known: Any = _defaults(block, _at(config, block).get("name"), True) or {}
    for key in field.split("."):
        if not isinstance(known, Mapping) or key not in known:
            return False
        known = known[key]
    return known is None


def _last_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def _check_override(config: ml_collections.ConfigDict, override: str) -> None:
    path, value = _parts(override)
    *parents, last = path.split(".")
    field = f"config.{path}"
    node: Any = config
    for i, key in enumerate([*parents, last]):
        known = list(node) if isinstance(node, ml_collections.ConfigDict) else []
        if key not in known:
            unknown = "config." + ".".join([*parents, last][: i + 1])
            raise SettingError(unknown, value, f"unknown field; {one_of(key, known)}")
        node = node[key]
    whole = value == "None" or value.startswith("{")
    if isinstance(node, ml_collections.ConfigDict) and not whole:
        first = "name" if "name" in node or not len(node) else next(iter(node))
        remedy = f"is a block of settings; set one of them, --{field}.{first}=..."
        raise SettingError(field, value, remedy)


def _parts(override: str) -> tuple[str, str]:
    """The path of a field and its value, as texts."""
    match = re.fullmatch(r"--?config\.([\w.]+)=(.*)", override, re.DOTALL)
    if not match:
        remedy = "unknown argument; settings are written --config.key=value, see --help"
        raise SettingError("command line", override, remedy)
    return match.group(1), match.group(2)
