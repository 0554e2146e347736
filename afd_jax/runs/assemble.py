"""From settings to objects: data, networks, method, optimizers and devices of one run."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
import optax

from afd_jax.engine import seeds
from afd_jax.engine.build import make_cohort, make_peers
from afd_jax.runs.choices import call
from afd_jax.engine.cohort import Cohort
from afd_jax.runs.settings import check_keys
from afd_jax.data import Recipe, Splits, Streamed, channel_statistics, load, load_streamed
from afd_jax.runs.durations import to_steps
from afd_jax.errors import SettingError, require_flag, require_number, within
from afd_jax.engine.init import init_state
from afd_jax.methods import make_method, require_teachers
from afd_jax.networks import create
from afd_jax.engine.optimizers import OPTIMIZERS, SCHEDULES
from afd_jax.engine.devices import Parallel, make_parallel
from afd_jax.runs.prerequisites import sources, stages
from afd_jax.engine.state import TrainState
from afd_jax.runs.teachers import Teacher, load_teachers
from afd_jax.runs.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Run:
    """All that a training run needs, checked, before anything is compiled.

    Attributes:
      cohort: networks, method, optimizers.
      device_cohort: the same with BatchNorm synchronised over the devices, for the step.
      splits: the data.
      recipe: augmentation and normalisation.
      parallel: devices, and how the step runs on them.
      seeds: of parameters, augmentation and the order of examples; they train side by side.
      batch_size: over all devices.
      eval_batch_size: likewise, a multiple of the number of devices, no more than the set needs.
      steps_per_epoch: full batches in one pass over the training set.
      total_steps: of the run.
      log_every: steps between two log lines.
      eval_every: steps between two evaluations.
      checkpoint_every: steps between two checkpoints.
      steps_per_call: at most so many steps run without the host.
      teachers: the frozen networks.
    """

    cohort: Cohort
    device_cohort: Cohort
    splits: Splits
    recipe: Recipe
    parallel: Parallel
    seeds: tuple[int, ...]
    batch_size: int
    eval_batch_size: int
    steps_per_epoch: int
    total_steps: int
    log_every: int
    eval_every: int
    checkpoint_every: int
    steps_per_call: int
    teachers: tuple[Teacher, ...] = ()

    def initial_state(self) -> TrainState:
        """The arrays at the beginning, the teachers' included."""
        return init_state(self.cohort, self.keys, [t.variables for t in self.teachers])

    @property
    def streams(self) -> bool:
        """Whether the data come from disk all along."""
        return isinstance(self.splits.train, Streamed)

    @property
    def keys(self) -> jax.Array:
        """Keys of the seeds; a single one has no axis."""
        return seeds.join([jax.random.key(np.uint32(seed)) for seed in self.seeds])


def assemble(config: ml_collections.ConfigDict, workdir: str | pathlib.Path = "") -> Run:
    """Builds a run from its settings.

    Args:
      config: settings.
      workdir: folder of the run, below which teachers may have been trained; none if empty.

    Raises:
      SettingError: for anything in the settings that cannot work.
    """
    check_keys(config)
    with within("config"):
        return _assemble(config, pathlib.Path(workdir or "WORKDIR"))


def _assemble(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Run:
    require_number("seed", config.seed, least=0, most=2**32 - 1, whole=True)
    require_number("seeds", config.seeds, least=1, most=2**32 - config.seed, whole=True)
    require_flag("alone", config.alone)
    for field in ("batch_size", "eval_batch_size"):
        require_number(field, config[field], least=1, whole=True)
    # What needs no data is checked first, so that a mistake costs no loading.
    names = _networks(config.networks)
    options = config.method.to_dict()
    found = sources(config, workdir)
    name = config.method.get("name")
    if config.generations > 1:
        require_teachers(name, len(found), "generations", config.generations)
    require_teachers(name, len(found), "teachers", tuple(config.teachers))
    method = make_method(options.pop("name", None), config.graph, names, options, len(found))
    if method.uses_heldout and not config.data.heldout:
        remedy = "the method learns from held-out images once an epoch; keep some, such as 0.1"
        raise SettingError("data.heldout", config.data.heldout, remedy)
    make_peers([create(name, classes=10) for name in names], names, method, alone=config.alone)
    for n, source in enumerate(found):
        if source.network is not None:
            try:
                create(source.network, classes=10)
            except SettingError as error:
                raise SettingError(f"teachers[{n}]", error.value, error.remedy) from error
    parallel = make_parallel(config.parallel.mode, config.parallel.devices)
    parallel.check_batch_size("batch_size", config.batch_size)
    _optimizers(config.optimizers, total_steps=10_000)  # as a check; made below

    if config.data.stream and config.seeds > 1:
        remedy = "streamed batches are of one seed; start a run for each"
        raise SettingError("seeds", config.seeds, remedy)
    if config.data.stream and method.follower and method.follower.sees_partners:
        remedy = "the method pairs images of a class, which a stream cannot look up"
        raise SettingError("data.stream", config.data.stream, remedy)
    for stage in stages(config, workdir):
        if (own := Workdir(stage.folder)).summary.is_file():
            try:
                own.require_settings(stage.config)
            except SettingError as error:
                field = error.field.removeprefix("config.")
                raise SettingError(field, error.value, error.remedy) from error
        elif stage.first:  # its mistakes, too, are found before anything is trained
            _assemble(stage.config, stage.folder)
    splits = _load(config.data)
    recipe = _recipe(config.data, splits)
    steps_per_epoch = len(splits.train) // config.batch_size
    if not steps_per_epoch:
        remedy = f"must be at most the {len(splits.train)} training examples"
        raise SettingError("batch_size", config.batch_size, remedy)

    def steps(field: str) -> int:
        size, examples = config.batch_size, len(splits.train)
        return to_steps(field, config[field], batch_size=size, examples=examples)

    total_steps = steps("duration")
    teachers = load_teachers(
        found,
        image_shape=splits.image_shape,
        classes=splits.classes,
        recipe=recipe,
        count=config.seeds,
    )
    modules = {name: create(name, splits.classes) for name in names}
    cohort = make_cohort(
        [modules[name] for name in names],
        method,
        _optimizers(config.optimizers, total_steps),
        image_shape=splits.image_shape,
        classes=splits.classes,
        names=names,
        teachers=[teacher.module for teacher in teachers],
        teacher_names=[f"teacher {teacher.name}" for teacher in teachers],
        alone=config.alone,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        examples=len(splits.train),
        precision=config.precision,
    )
    devices = len(parallel.devices)
    largest = max(len(splits.heldout), len(splits.test))
    return Run(
        cohort=cohort,
        device_cohort=parallel.prepare(cohort),
        splits=splits,
        recipe=recipe,
        parallel=parallel,
        seeds=tuple(range(config.seed, config.seed + config.seeds)),
        batch_size=config.batch_size,
        eval_batch_size=-(-min(config.eval_batch_size, largest) // devices) * devices,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        log_every=steps("log_every"),
        eval_every=steps("eval_every"),
        checkpoint_every=steps("checkpoint_every"),
        steps_per_call=_steps_per_call(
            config.parallel.steps_per_call, parallel, config.data.stream
        ),
        teachers=teachers,
    )


def _networks(names: Any) -> list[str]:
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise SettingError("networks", names, "must be a list of names")
    return list(names)


def _load(data: Mapping[str, Any]) -> Splits:
    if data["limit"] is not None:
        require_number("data.limit", data["limit"], least=1, whole=True)
    require_number("data.heldout", data["heldout"], least=0, most=0.9)
    require_flag("data.stream", data["stream"])
    if data["stream"]:
        return load_streamed(
            data["name"],
            data_dir=data["data_dir"],
            download=data["download"],
            image_size=data["image_size"],
            workers=_workers(data["workers"]),
            heldout=data["heldout"],
            limit=data["limit"],
        )
    return load(
        data["name"],
        data_dir=data["data_dir"],
        download=data["download"],
        heldout=data["heldout"],
        limit=data["limit"],
    )


def _workers(wanted: int | None) -> int:
    return (os.cpu_count() or 1) if wanted is None else wanted


def _recipe(data: Mapping[str, Any], splits: Splits) -> Recipe:
    mean, std = data["mean"], data["std"]
    if isinstance(splits.train, Streamed):
        for field, off in (("pad", 0), ("flip", False)):
            if data[field] != off:
                remedy = f"streamed images are cut and flipped as they are read; leave it {off}"
                raise SettingError(f"data.{field}", data[field], remedy)
        for field, value in (("mean", mean), ("std", std)):
            if value is None:
                remedy = "give a value for each channel; a streamed set is not read for it"
                raise SettingError(f"data.{field}", value, remedy)
    elif mean is None or std is None:
        own_mean, own_std = channel_statistics(splits.train.images)
        if std is None and not all(own_std):
            remedy = f"channel {own_std.index(0)} is the same in all training images; give values"
            raise SettingError("data.std", std, remedy)
        mean, std = own_mean if mean is None else mean, own_std if std is None else std
    recipe = Recipe(
        mean=mean,
        std=std,
        pad=data["pad"],
        pad_mode=data["pad_mode"],
        flip=data["flip"],
    )
    recipe.check(splits.image_shape)
    return recipe


def _optimizers(
    settings: Mapping[str, Mapping[str, Any]], total_steps: int
) -> dict[str, optax.GradientTransformation]:
    optimizers = {}
    for update in settings:
        with within(f"optimizers.{update}"):
            optimizers[update] = _optimizer(settings[update], total_steps)
    return optimizers


def _optimizer(settings: Mapping[str, Any], total_steps: int) -> optax.GradientTransformation:
    options = dict(settings)
    rate = options.pop("learning_rate", None)
    require_number("learning_rate", rate, least=0)
    with within("schedule"):
        shape = options.pop("schedule", None) or {"name": "constant"}
        schedule = call("name", SCHEDULES, shape, rate, total_steps)
    return call("name", OPTIMIZERS, options, schedule)


def _steps_per_call(wanted: int | None, parallel: Parallel, streams: bool) -> int:
    if wanted is None:
        # A loop costs a CPU more than the calls it saves; elsewhere the number is assumed. Large
        # images would have to wait for each other.
        return 1 if streams or parallel.devices[0].platform == "cpu" else 10
    require_number("parallel.steps_per_call", wanted, least=1, whole=True)
    return wanted
