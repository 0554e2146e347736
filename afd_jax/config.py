"""The settings of a run: what there is to set, how it is read, how it is checked.

A config file (see `configs/`) starts from `base_config()` and sets fields; the command line
overrides single ones: `--config.seed=1`.
"""

import copy
import pathlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from afd_jax.choices import keyword_options
from afd_jax.errors import SettingError, one_of, require_number

UNITS = ("steps", "epochs", "examples")
_MOST_STEPS = 2**31 - 1  # the state counts steps in int32


def base_config() -> ml_collections.ConfigDict:
    """Every field that a config may set, with a neutral value."""
    return ml_collections.ConfigDict(
        {
            "seed": 0,
            "seeds": 1,  # so many runs side by side in one program, from `seed` upwards
            # Names of afd_jax.networks, or "package.module:Class". Nodes of the graph, or one
            # network in branches.
            "networks": ("resnet8", "resnet8"),
            # Frozen networks that teach the others: folders of finished runs, "runs/a" or, for its
            # node 1, "runs/a@1"; or names of networks, each trained first, alone and by this
            # recipe, in WORKDIR/teacher_0, ...
            "teachers": (),
            # A chain of so many, each with the one before for its teacher, in WORKDIR/generation_1,
            # ... and the last in WORKDIR; the first has `teachers`, or the labels alone.
            "generations": 1,
            # "own" (of the method's paper), "cyclic", "all_pairs", "star", "none", or edges
            # ((source, target), ...), where teachers are the nodes after the networks.
            "graph": "own",
            # Also train, on the same batches, a twin of every network that starts from the same
            # parameters and learns from the labels alone.
            "alone": False,
            # "name", and the fields of that method's class.
            "method": {"name": "afd"},
            "optimizers": {
                "logit": _optimizer("sgd", 0.1, momentum=0.9, nesterov=False),
                "feature": _optimizer("adam", 1e-3),
                "discriminator": _optimizer("adam", 1e-3),
            },
            "data": {
                # "digits", "cifar10", "cifar100", "tfds:NAME", or "arrays".
                "name": "digits",
                # Folder of TFDS data sets (None: TFDS's own default), or .npz file for "arrays".
                "data_dir": placeholder(str),
                "download": False,
                "heldout": 0.0,  # share of the training set kept for model selection
                "limit": placeholder(int),  # use only so many examples, for quick checks
                # Read from disk all along, for sets too large for memory ("tfds:NAME" only):
                # cut at random, resized and flipped by worker processes; needs Grain.
                "stream": False,
                "image_size": 224,  # side of streamed images
                "workers": placeholder(int),  # processes that decode them; None: one for each core
                "mean": placeholder(tuple),  # per channel, of 1; None: from the training images
                "std": placeholder(tuple),
                "pad": 0,
                "pad_mode": "reflect",  # or "zero"
                "flip": False,
            },
            # Of the networks' arithmetic in training: "float32" or "bfloat16" (assumed).
            "precision": "float32",
            "batch_size": 128,  # over all devices
            "eval_batch_size": 500,
            # Durations: a number and one of steps, epochs, examples.
            "duration": "10 epochs",
            "log_every": "50 steps",
            "eval_every": "1 epochs",
            "checkpoint_every": "1 epochs",
            "parallel": {
                # "auto" (pmap on several devices, jit on one), "jit", "pmap", "shard_map".
                "mode": "auto",
                "devices": placeholder(int),  # None: all
                # At most so many steps without the host; None: 1 on CPUs, 10 elsewhere.
                "steps_per_call": placeholder(int),
            },
        }
    )


def _optimizer(name: str, learning_rate: float, **options: Any) -> dict[str, Any]:
    """Settings of one optimizer; options are those of `afd_jax.optim`."""
    return {
        "name": name,
        "learning_rate": learning_rate,
        "weight_decay": 0.0,
        "decay": "gradient",  # or "decoupled"
        **options,
        "schedule": {"name": "constant"},
    }


# The blocks whose keys depend on a name inside them; those are checked where they are used.
_OPEN = (
    "method",
    *(
        f"optimizers.{update}{part}"
        for part in ("", ".schedule")
        for update in ("logit", "feature", "discriminator")
    ),
)
# What an optimizer's block keeps when it gets another name.
_SHARED = ("learning_rate", "weight_decay", "decay", "schedule")


def check_keys(config: ml_collections.ConfigDict) -> None:
    """Raises SettingError for a field that `base_config` does not have, or that is missing."""

    def check(given: Any, known: Any, path: str) -> None:
        for key in given:
            if key not in known:
                field = f"config.{path}{key}"
                raise SettingError(field, given[key], f"unknown field; {one_of(key, known)}")
        for key, value in known.items():
            if key not in given:
                raise SettingError(f"config.{path}{key}", None, "missing; start from base_config()")
            if isinstance(value, ml_collections.ConfigDict) and path + key not in _OPEN:
                if not isinstance(given[key], ml_collections.ConfigDict):
                    remedy = f"must hold the fields {', '.join(value)}"
                    raise SettingError(f"config.{path}{key}", given[key], remedy)
                check(given[key], value, f"{path}{key}.")

    check(config, base_config(), "")


def _duration(text: str) -> re.Match | None:
    return re.fullmatch(r"\s*([0-9.eE+]+)\s*([a-z]+)\s*", str(text))


def to_steps(field: str, duration: str, *, batch_size: int, examples: int) -> int:
    """Converts a duration such as "300 epochs" to training steps, at least 1.

    Args:
      field: name of the setting, for errors.
      duration: a number and one of steps, epochs, examples.
      batch_size: examples per step.
      examples: examples per epoch; an epoch drops what does not fill its last batch.

    Raises:
      SettingError: if it cannot be read, is not above zero, or too long to count.

    >>> to_steps("duration", "2 epochs", batch_size=128, examples=50_000)
    780
    """
    match = _duration(duration)
    unit = match.group(2) if match else ""
    unit = unit if unit.endswith("s") else unit + "s"
    if not match or unit not in UNITS:
        remedy = f"must be a number and one of {', '.join(UNITS)}, such as '10 epochs'"
        raise SettingError(field, duration, remedy)
    try:
        number = float(match.group(1))
    except ValueError:
        number = 0.0
    require_number(field, number, above=0)
    per_unit = {"steps": 1.0, "epochs": examples // batch_size, "examples": 1 / batch_size}[unit]
    steps = number * per_unit
    if steps > _MOST_STEPS:
        raise SettingError(field, duration, f"must be at most {_MOST_STEPS} steps")
    return max(1, round(steps))


def scaled(duration: str, share: float) -> str:
    """A share of a duration.

    >>> scaled("300 epochs", 0.04)
    '12 epochs'
    """
    match = _duration(duration)
    if match is None:
        raise SettingError("duration", duration, "must be a number and a unit, '10 epochs'")
    digits = f"{float(match.group(1)) * share:f}"  # an exponent could not be read again
    return f"{digits.rstrip('0').rstrip('.')} {match.group(2)}"


def smoke(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Shrinks any config to about a minute on two CPU cores: it shows that all parts work."""
    config.data.limit = 512
    config.data.image_size = min(config.data.image_size, 64)
    config.generations = min(config.generations, 2)
    config.batch_size = 32
    config.eval_batch_size = 128
    config.duration = "24 steps"
    config.log_every = "8 steps"
    config.eval_every = "12 steps"
    config.checkpoint_every = "12 steps"
    return config


def parse_arguments(argument: str, default: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """Reads what stands behind the colon in --config=FILE:ARGUMENT, for networks alike in role.

    Args:
      argument: network names separated by commas, and perhaps the word "smoke".
      default: the networks if none are named.

    Returns:
      (networks, whether "smoke" was there).

    >>> parse_arguments("resnet20,resnet32,smoke", default=())
    (('resnet20', 'resnet32'), True)
    """
    words = [word.strip() for word in argument.split(",") if word.strip()]
    networks = tuple(word for word in words if word != "smoke")
    return networks or tuple(default), "smoke" in words


def parse_student(
    argument: str, student: str, teachers: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    """As `parse_arguments`, for a student and, after it, its teachers.

    Args:
      argument: names separated by commas; a teacher may be the folder of a run.
      student: the default.
      teachers: likewise; None for one like the student.

    Returns:
      (networks, teachers, whether "smoke" was there).

    >>> parse_student("resnet8,runs/teacher", "resnet32", ("resnet56",))
    (('resnet8',), ('runs/teacher',), False)
    >>> parse_student("resnet8,smoke", "resnet32", None)
    (('resnet8',), ('resnet8',), True)
    """
    (first, *rest), small = parse_arguments(argument, (student,))
    own = tuple(rest) or ((first,) if teachers is None else tuple(teachers))
    return (first,), own, small


def read_config(file: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """Loads a config file and applies overrides.

    Args:
      file: path of a Python file with `get_config`, and an argument for it behind a colon.
      overrides: as on a command line, `--config.key=value`.

    Raises:
      SettingError: if the file is missing or broken, a key is unknown or a value of another type.
    """
    from absl import flags
    from ml_collections import config_flags

    path = file.split(":", 1)[0]
    if not pathlib.Path(path).is_file():
        raise SettingError("--config", path, "no such file; the configs of this project: configs/")

    def parse(define: Any, source: Any, arguments: Sequence[str]) -> ml_collections.ConfigDict:
        values = flags.FlagValues()
        argv, sys.argv = sys.argv, [sys.argv[0], *arguments]
        try:  # ml_collections looks for overrides in sys.argv, whatever it is asked to parse.
            define("config", source, flag_values=values)
            values(sys.argv)
            return values.config
        finally:
            sys.argv = argv

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
    try:
        return parse(config_flags.DEFINE_config_dict, config, overrides)
    except Exception as error:
        reason = _last_line(error)
        named = re.match(r"flag --(config\.[\w.]+)=(.*?): (.*)", reason)
        field, value, reason = named.groups() if named else ("config", " ".join(overrides), reason)
        raise SettingError(field, value, reason) from error


def fill_options(
    config: ml_collections.ConfigDict, chosen: Mapping[str, str] | None = None
) -> ml_collections.ConfigDict:
    """Gives every block that names a choice all options of that choice, so that all can be set.

    Args:
      config: is not changed.
      chosen: new names by path, {"optimizers.feature": "sgd"}. A block that gets another name keeps
        what all choices have (learning rate, weight decay) and starts from the defaults else.

    Returns:
      A copy.
    """
    config = copy.deepcopy(config)
    for path in _OPEN:
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
        defaults = _defaults(path, name)
        if defaults is None:
            continue
        own = block.to_dict()
        if name != block.get("name"):
            own = {key: own[key] for key in _SHARED if key in own}
        with config.unlocked():
            parent[last] = ml_collections.ConfigDict({**defaults, **own, "name": name})
    return config


def _at(config: Any, path: str) -> Any:
    """The block at a path, None if there is none."""
    for key in filter(None, path.split(".")):
        config = config.get(key) if isinstance(config, ml_collections.ConfigDict) else None
    return config


def _defaults(path: str, name: Any) -> dict[str, Any] | None:
    from afd_jax.methods import METHODS, method_options
    from afd_jax.optim import OPTIMIZERS, SCHEDULES

    if path == "method":
        return method_options(name) if name in METHODS else None
    choices: Mapping[str, Any] = SCHEDULES if path.endswith(".schedule") else OPTIMIZERS
    return keyword_options(choices[name]) if name in choices else None


def _chosen(overrides: Sequence[str]) -> dict[str, str]:
    """The names that overrides choose, by the path of their block."""
    found = (re.fullmatch(r"--?config\.([\w.]+)\.name=(.*)", text) for text in overrides)
    return {match.group(1): match.group(2) for match in found if match}


def _last_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def _check_override(config: ml_collections.ConfigDict, override: str) -> None:
    match = re.fullmatch(r"--?config\.([\w.]+)=(.*)", override, re.DOTALL)
    if not match:
        remedy = "unknown argument; settings are written --config.key=value, see --help"
        raise SettingError("command line", override, remedy)
    *parents, last = match.group(1).split(".")
    node: Any = config
    for i, key in enumerate([*parents, last]):
        known = list(node) if isinstance(node, ml_collections.ConfigDict) else []
        if key not in known:
            field = "config." + ".".join([*parents, last][: i + 1])
            raise SettingError(field, match.group(2), f"unknown field; {one_of(key, known)}")
        node = node[key]
