"""From settings to objects: data, networks, method, optimizers and devices of one run."""

import ast
import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
import optax

from afd_jax.build import make_cohort
from afd_jax.cohort import Cohort
from afd_jax.config import check_keys, to_steps
from afd_jax.data import Recipe, Splits, channel_statistics, load
from afd_jax.errors import SettingError, one_of, require_number
from afd_jax.graph import make_graph
from afd_jax.methods import make_method
from afd_jax.networks import create
from afd_jax.optim import OPTIMIZERS, SCHEDULES
from afd_jax.parallel import Parallel, make_parallel


@dataclasses.dataclass(frozen=True)
class Run:
    """All that a training run needs, checked, before anything is compiled.

    Attributes:
      cohort: networks, method, optimizers.
      device_cohort: the same with BatchNorm synchronised over the devices, for the step.
      splits: the data.
      recipe: augmentation and normalisation.
      parallel: devices, and how the step runs on them.
      seed: of parameters, augmentation and the order of examples.
      batch_size: over all devices.
      eval_batch_size: likewise, a multiple of the number of devices.
      steps_per_epoch: full batches in one pass over the training set.
      total_steps: of the run.
      log_every: steps between two log lines.
      eval_every: steps between two evaluations.
      checkpoint_every: steps between two checkpoints.
      members: how many nodes the config names; twins that learn alone come after them.
    """

    cohort: Cohort
    device_cohort: Cohort
    splits: Splits
    recipe: Recipe
    parallel: Parallel
    seed: int
    batch_size: int
    eval_batch_size: int
    steps_per_epoch: int
    total_steps: int
    log_every: int
    eval_every: int
    checkpoint_every: int
    members: int


def assemble(config: ml_collections.ConfigDict) -> Run:
    """Builds a run from its settings.

    Raises:
      SettingError: for anything in the settings that cannot work.
    """
    check_keys(config)
    require_number("config.seed", config.seed, least=0, whole=True)
    for field in ("batch_size", "eval_batch_size"):
        require_number(f"config.{field}", config[field], least=1, whole=True)
    # Cheap checks come first, so that a mistake costs no loading of data.
    networks = _networks(config.networks)
    if len(networks) < (1 if config.graph == "none" else 2):
        remedy = "networks that teach each other are at least 2; name them behind a colon, "
        remedy += "--config=FILE:resnet8,resnet14, or set config.graph='none'"
        raise SettingError("config.networks", tuple(networks), remedy)
    members, twins = len(networks), len(networks) if config.alone else 0
    graph = _named("config", lambda: make_graph(_edges(config.graph), members, members + twins))
    method_options = config.method.to_dict()
    method = _named(
        "config", lambda: make_method(method_options.pop("name", None), graph, method_options)
    )
    parallel = _named(
        "config", lambda: make_parallel(config.parallel.mode, config.parallel.devices)
    )
    _named("config", lambda: parallel.check_batch_size("batch_size", config.batch_size))

    splits = _named("config", lambda: _load(config.data))
    recipe = _named("config", lambda: _recipe(config.data, splits))
    steps_per_epoch = len(splits.train) // config.batch_size
    if not steps_per_epoch:
        remedy = f"must be at most the {len(splits.train)} training examples"
        raise SettingError("config.batch_size", config.batch_size, remedy)

    def steps(field: str) -> int:
        size, examples = config.batch_size, len(splits.train)
        return to_steps(f"config.{field}", config[field], batch_size=size, examples=examples)

    total_steps = steps("duration")
    classes = splits.classes
    modules = [create_named(name, classes) for name in networks]
    cohort = _named(
        "config",
        lambda: make_cohort(
            modules * (2 if twins else 1),
            method,
            _optimizers(config.optimizers, total_steps),
            image_shape=splits.image_shape,
            classes=classes,
            names=[*networks, *(f"{name} alone" for name in networks[:twins])],
            starts=[*range(members), *range(twins)],
        ),
    )
    devices = len(parallel.devices)
    return Run(
        cohort=cohort,
        device_cohort=_named("config", lambda: parallel.prepare(cohort)),
        splits=splits,
        recipe=recipe,
        parallel=parallel,
        seed=config.seed,
        batch_size=config.batch_size,
        eval_batch_size=-(-config.eval_batch_size // devices) * devices,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        log_every=steps("log_every"),
        eval_every=steps("eval_every"),
        checkpoint_every=steps("checkpoint_every"),
        members=members,
    )


def create_named(name: str, classes: int) -> Any:
    """`networks.create`, with the config's name in its errors."""
    return _named("config", lambda: create(name, classes))


def _named(prefix: str, make: Any) -> Any:
    """Runs `make`; a SettingError from inside gets the prefix that a command line needs."""
    try:
        return make()
    except SettingError as error:
        raise SettingError(f"{prefix}.{error.field}", error.value, error.remedy) from error


def _networks(names: Any) -> list[str]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise SettingError("config.networks", names, "must be a list of names")
    return list(names)


def _edges(graph: Any) -> Any:
    """Edges may come from a command line, as text."""
    try:
        return ast.literal_eval(graph) if str(graph).startswith(("(", "[")) else graph
    except (ValueError, SyntaxError) as error:
        raise SettingError("graph", graph, "edges are written ((source, target), ...)") from error


def _load(data: Mapping[str, Any]) -> Splits:
    if data["limit"] is not None:
        require_number("data.limit", data["limit"], least=1, whole=True)
    require_number("data.heldout", data["heldout"], least=0, most=0.9)
    return load(
        data["name"],
        data_dir=data["data_dir"],
        download=data["download"],
        heldout=data["heldout"],
        limit=data["limit"],
    )


def _recipe(data: Mapping[str, Any], splits: Splits) -> Recipe:
    mean, std = data["mean"], data["std"]
    if mean is None or std is None:
        own_mean, own_std = channel_statistics(splits.train.images)
        mean, std = own_mean if mean is None else mean, own_std if std is None else std
    recipe = Recipe(
        mean=tuple(mean),
        std=tuple(std),
        pad=data["pad"],
        pad_mode=data["pad_mode"],
        flip=data["flip"],
    )
    recipe.check(splits.image_shape)
    return recipe


def _optimizers(
    settings: Mapping[str, Mapping[str, Any]], total_steps: int
) -> dict[str, optax.GradientTransformation]:
    return {
        update: _named(
            f"optimizers.{update}", lambda u=update: _optimizer(settings[u], total_steps)
        )
        for update in settings
    }


def _optimizer(settings: Mapping[str, Any], total_steps: int) -> optax.GradientTransformation:
    options = {key: value for key, value in settings.items() if key != "schedule"}
    shape = dict(settings.get("schedule") or {"name": "constant"})
    rate = options.pop("learning_rate", None)
    require_number("learning_rate", rate, least=0)
    schedule = _call("schedule.name", SCHEDULES, shape, rate, total_steps)
    return _call("name", OPTIMIZERS, options, schedule)


def _call(field: str, choices: Mapping[str, Any], options: dict[str, Any], *args: Any) -> Any:
    """Calls the choice that `options["name"]` names with the other options."""
    name = options.pop("name", None)
    if name not in choices:
        raise SettingError(field, name, one_of(name, choices))
    known = inspect.signature(choices[name]).parameters
    keywords = [key for key, p in known.items() if p.kind is p.KEYWORD_ONLY]
    for key, value in options.items():
        if key not in keywords:
            raise SettingError(key, value, f"unknown to {name}; {one_of(key, keywords)}")
    return choices[name](*args, **options)


def seed_key(seed: int) -> jax.Array:
    """The key of a run."""
    return jax.random.key(np.uint32(seed))
