"""From settings to objects: data, networks, method, optimizers and devices of one run."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
import optax

from afd_jax.data import (
    Outline,
    Recipe,
    Splits,
    Streamed,
    channel_statistics,
    load,
    load_streamed,
    outline,
)
from afd_jax.data.cores import usable_cores
from afd_jax.engine import seeds
from afd_jax.engine.build import make_plan, require_one_smoothing, require_teachers, students
from afd_jax.engine.devices import Devices, make_devices
from afd_jax.engine.init import init_state
from afd_jax.engine.optimizers import OPTIMIZERS, SCHEDULES
from afd_jax.engine.plan import Plan
from afd_jax.engine.state import TrainState
from afd_jax.errors import SettingError, require_flag, require_number, require_path, within
from afd_jax.networks import create
from afd_jax.networks.functional import functional
from afd_jax.runs.choices import call, make_method, named_networks
from afd_jax.runs.durations import to_steps
from afd_jax.runs.early_stopping import EarlyStopping
from afd_jax.runs.init_from import Start, load_starts, start_sources
from afd_jax.runs.prerequisites import prerequisites, sources
from afd_jax.runs.processes import check_heartbeat_timeout
from afd_jax.runs.profile import Span, read_span
from afd_jax.runs.settings import check_keys
from afd_jax.runs.teachers import Teacher, load_teachers, require_class_names
from afd_jax.runs.trained import code_named
from afd_jax.runs.watchdog import check_step_timeout
from afd_jax.runs.workdir import Workdir
from afd_jax.runs.writers import require_writers

_SEEDS = 1000  # more would compile for hours

MIXES = ("mixup", "cutmix")


@dataclasses.dataclass(frozen=True)
class Run:
    """All that a training run needs, checked, before anything is compiled.

    Attributes:
      plan: networks, graph, method, optimizers.
      device_plan: the same with BatchNorm synchronised over the devices, for the step.
      splits: the data.
      recipe: augmentation and normalisation.
      devices: and how the step runs on them.
      seeds: of parameters, augmentation and the order of examples; they train side by side.
      batch_size: over all devices.
      eval_batch_size: likewise, a multiple of the number of devices, no more than the set needs.
      steps_per_epoch: full batches in one pass over the training set.
      total_steps: of the run.
      log_every: steps between two log lines.
      eval_every: steps between two evaluations.
      checkpoint_every: steps between two checkpoints.
      steps_per_call: at most so many steps run without the host.
      early_stopping: when it ends before its last step.
      step_timeout: seconds without a step after which the run hangs; None: see `Watchdog`.
      profile: the steps to trace; None for none.
      class_pairs: two images of a class follow each other in a batch.
      teachers: the frozen networks, by node.
      starts: what networks start from, by name; those that are not here are drawn.
    """

    plan: Plan
    device_plan: Plan
    splits: Splits
    recipe: Recipe
    devices: Devices
    seeds: tuple[int, ...]
    batch_size: int
    eval_batch_size: int
    steps_per_epoch: int
    total_steps: int
    log_every: int
    eval_every: int
    checkpoint_every: int
    steps_per_call: int
    early_stopping: EarlyStopping
    step_timeout: float | None = None
    profile: Span | None = None
    class_pairs: bool = False
    teachers: Mapping[str, Teacher] = dataclasses.field(default_factory=dict)
    starts: Mapping[str, Start] = dataclasses.field(default_factory=dict)

    def initial_state(self) -> TrainState:
        """The arrays at the beginning, the teachers' included."""
        variables = {name: teacher.variables for name, teacher in self.teachers.items()}
        starts = {name: start.variables for name, start in self.starts.items()}
        return init_state(self.plan, self.keys, variables, starts)

    @property
    def streams(self) -> bool:
        """Whether the data come from disk all along."""
        return isinstance(self.splits.train, Streamed)

    @property
    def paired_labels(self) -> np.ndarray | None:
        """[examples] of the training set, if batches are to be of pairs of a class."""
        return self.splits.train.labels if self.class_pairs else None

    @property
    def keys(self) -> jax.Array:
        """Keys of the seeds; a single one has no axis."""
        return seeds.join([jax.random.key(np.uint32(seed)) for seed in self.seeds])


def assemble(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path = "",
    *,
    outlined: bool = False,
) -> Run:
    """Builds a run from its settings.

    Args:
      config: settings.
      workdir: folder of the run, below which teachers may have been trained; none if empty.
      outlined: read no data; the run has its right sizes, but cannot train (`data.outline`).

    Raises:
      SettingError: for anything in the settings that cannot work.
    """
    check_keys(config)
    with within("config"):
        return _assemble(config, pathlib.Path(workdir or "WORKDIR"), outlined)


def _assemble(config: ml_collections.ConfigDict, workdir: pathlib.Path, outlined: bool) -> Run:
    require_number("seed", config.seed, least=0, most=2**32 - 1, whole=True)
    check_heartbeat_timeout("parallel.heartbeat_timeout", config.parallel.heartbeat_timeout)
    check_step_timeout("parallel.step_timeout", config.parallel.step_timeout)
    most = min(2**32 - config.seed, _SEEDS)
    require_number("seeds", config.seeds, least=1, most=most, whole=True)
    for field in ("twins", "second_forward", "own_augmentation", "averages", "trust"):
        require_flag(field, config[field])
    for field in ("batch_size", "eval_batch_size"):
        require_number(field, config[field], least=1, whole=True)
    require_writers(config.writers)
    stopping = EarlyStopping(**config.early_stopping)
    stopping.require_heldout(config.data.heldout)
    # What needs no data is checked first, so that a mistake costs no loading.
    names = _networks(config.networks)
    method = make_method(config.method)
    require_one_smoothing(method, config.label_smoothing)
    found = sources(config, workdir)
    if config.generations > 1:
        require_teachers(method, len(found), "generations", config.generations)
    require_teachers(method, len(found), "teachers", tuple(config.teachers))
    memory = getattr(method, "uses_heldout", False)
    if memory and not config.data.heldout:
        remedy = "the method learns from held-out images once an epoch; keep some, such as 0.1"
        raise SettingError("data.heldout", config.data.heldout, remedy)
    modules = named_networks(names, classes=10)  # as a check; made below
    students({own: functional(m) for own, m in modules.items()}, method, classes=10)
    for n, source in enumerate(found):
        if source.network is not None:
            try:
                create(source.network, classes=10)
            except SettingError as error:
                raise SettingError(f"teachers[{n}]", error.value, error.remedy) from error
    starts = start_sources(config)
    devices = make_devices(config.parallel.mode, config.parallel.devices)
    devices.check_batch_size("batch_size", config.batch_size)
    _optimizers(config.optimizers, total_steps=10_000)  # as a check, too

    if config.data.stream and config.seeds > 1:
        remedy = "streamed batches are of one seed; start a run for each"
        raise SettingError("seeds", config.seeds, remedy)
    drawn = config.data.trivial_augment or config.data.erase  # on the device, for each view
    if not config.data.stream:
        drawn = drawn or config.data.pad or config.data.flip or config.data.rotate
    if config.own_augmentation is True and not drawn:
        remedy = "all networks would see the same images, as nothing is drawn for them; add "
        remedy += "data.pad, data.flip, data.trivial_augment or another augmentation"
        if config.data.stream:
            remedy = "streamed images are cut and flipped once, as they are read, so all networks "
            remedy += "would see the same; add data.trivial_augment or data.erase, or do not stream"
        raise SettingError("own_augmentation", config.own_augmentation, remedy)
    if config.data.stream and method.pairs:
        remedy = "the method pairs images of a class, which a stream cannot look up"
        raise SettingError("data.stream", config.data.stream, remedy)
    if config.data.stream and method.preparation_epochs and jax.process_count() > 1:
        remedy = "the method prepares its teachers, which a stream on several hosts cannot feed; "
        raise SettingError("data.stream", config.data.stream, remedy + "train on one host")
    require_flag("data.class_pairs", config.data.class_pairs)
    if config.data.class_pairs and (config.data.stream or config.batch_size % 2):
        remedy = "needs data in memory and an even batch_size"
        raise SettingError("data.class_pairs", config.data.class_pairs, remedy)
    for field in MIXES:
        if config.data[field] and method.whole_images:
            remedy = f"{type(method).__name__} {method.whole_images}; leave it 0"
            raise SettingError(f"data.{field}", config.data[field], remedy)
    for before in prerequisites(config, workdir):
        if (own := Workdir(before.folder)).summary.is_file():
            try:
                own.require_settings(before.config)
            except SettingError as error:
                field = error.field.removeprefix("config.")
                raise SettingError(field, error.value, error.remedy) from error
        elif before.first:  # its mistakes, too, are found before anything is trained
            _assemble(before.config, before.folder, outlined)
    splits = load_splits(config.data, outlined)
    recipe = _recipe(config.data, splits)
    steps_per_epoch = len(splits.train) // config.batch_size
    if not steps_per_epoch:
        remedy = f"must be at most the {len(splits.train)} training examples"
        raise SettingError("batch_size", config.batch_size, remedy)

    def steps(field: str) -> int:
        size, examples = config.batch_size, len(splits.train)
        return to_steps(field, config[field], batch_size=size, examples=examples)

    total_steps = steps("duration")
    profile = read_span(config.profile, total_steps)
    # Code that this run itself names may run anyway.
    networks = [source.network for source in found]
    trust = config.trust or code_named([names, config.method.to_dict(), networks])
    teachers = load_teachers(
        found,
        image_shape=splits.image_shape,
        classes=splits.classes,
        recipe=recipe if _normalised(config.data, splits) else None,
        count=config.seeds,
        trust=trust,
    )
    require_class_names("teachers", found, splits.class_names)
    require_class_names("init_from", starts, splits.class_names)
    plan = make_plan(
        named_networks(names, splits.classes),
        method,
        image_shape=splits.image_shape,
        classes=splits.classes,
        graph=config.graph,
        teachers={name: teacher.module for name, teacher in teachers.items()},
        twins=config.twins,
        optimizers=_optimizers(config.optimizers, total_steps),
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        examples=len(splits.train),
        second_forward=config.second_forward,
        own_augmentation=config.own_augmentation,
        averages=config.averages,
        average_decay=config.average_decay,
        label_smoothing=config.label_smoothing,
        precision=config.precision,
    )
    stopping.require_edges(plan.graph)
    log_every, eval_every = steps("log_every"), steps("eval_every")
    if stopping.patience:  # so that a run that stops early has a line
        log_every = min(log_every, (stopping.patience + 1) * eval_every)
    largest, count = max(len(splits.heldout), len(splits.test)), len(devices.devices)
    return Run(
        plan=plan,
        device_plan=devices.prepare(plan),
        splits=splits,
        recipe=recipe,
        devices=devices,
        seeds=tuple(range(config.seed, config.seed + config.seeds)),
        batch_size=config.batch_size,
        eval_batch_size=-(-min(config.eval_batch_size, largest) // count) * count,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        log_every=log_every,
        eval_every=eval_every,
        checkpoint_every=steps("checkpoint_every"),
        steps_per_call=_steps_per_call(config.parallel.steps_per_call, devices, config.data.stream),
        early_stopping=stopping,
        step_timeout=config.parallel.step_timeout,
        profile=profile,
        class_pairs=config.data.class_pairs,
        teachers=teachers,
        starts=load_starts(
            starts,
            plan.networks,
            image_shape=splits.image_shape,
            classes=splits.classes,
            count=config.seeds,
            trust=trust,
        ),
    )


def _networks(names: Any) -> list[str]:
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise SettingError("networks", names, "must be a list of names")
    if not names:
        raise SettingError("networks", tuple(names), "name at least one, --config=FILE:resnet8")
    return list(names)


def load_splits(data: Mapping[str, Any], outlined: bool = False) -> Splits:
    """The data that settings name, `config.data`, or their outline.

    Raises:
      SettingError: where the settings cannot work.
    """
    require_flag("data.stream", data["stream"])
    if data["data_dir"] is not None:
        require_path("data.data_dir", data["data_dir"])
    if data["workers"] is not None:
        require_number("data.workers", data["workers"], least=0, whole=True)
    common = {field: data[field] for field in ("data_dir", "download", "heldout", "limit")}
    size = data["image_size"]
    if outlined and not (data["stream"] and data["labels"] is not None):
        del common["download"]
        own = {field: data[field] for field in ("labels", "stream")}
        return outline(data["name"], image_size=size, **own, **common)
    if not data["stream"]:
        return load(data["name"], image_size=size, labels=data["labels"], **common)
    if data["labels"] is not None:
        remedy = "the labels of a streamed set are not read ahead; leave it None"
        raise SettingError("data.labels", data["labels"], remedy)
    workers = usable_cores() if data["workers"] is None else data["workers"]
    common["image_size"] = 224 if size is None else size
    return load_streamed(data["name"], workers=workers, **common)


def _recipe(data: Mapping[str, Any], splits: Splits) -> Recipe:
    mean, std = data["mean"], data["std"]
    if isinstance(splits.train, Streamed):
        for field, off in (("pad", 0), ("flip", False), ("rotate", 0.0)):
            if data[field] != off:
                remedy = f"streamed images are cut and flipped as they are read; leave it {off}"
                raise SettingError(f"data.{field}", data[field], remedy)
        for field, value in (("mean", mean), ("std", std)):
            if value is None:
                remedy = "give a value for each channel; a streamed set is not read for it"
                raise SettingError(f"data.{field}", value, remedy)
    elif isinstance(splits.train, Outline):
        channels = splits.image_shape[-1]  # any numbers: nobody learns from them
        mean = (0.5,) * channels if mean is None else mean
        std = (0.25,) * channels if std is None else std
    elif mean is None or std is None:
        own_mean, own_std = channel_statistics(splits.train.images)
        if std is None and not all(own_std):
            remedy = f"channel {own_std.index(0)} is the same in all training images; give values"
            raise SettingError("data.std", std, remedy)
        mean, std = own_mean if mean is None else mean, own_std if std is None else std
    augmentation = {field: data[field] for field in ("pad", "pad_mode", "flip", "rotate")}
    augmentation |= {field: data[field] for field in ("trivial_augment", "erase", *MIXES)}
    recipe = Recipe(mean=mean, std=std, **augmentation)
    recipe.check(splits.image_shape)
    return recipe


def _normalised(data: Mapping[str, Any], splits: Splits) -> bool:
    """Whether means and deviations are known: an outline has none of its own."""
    given = data["mean"] is not None and data["std"] is not None
    return given or not isinstance(splits.train, Outline)


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


def _steps_per_call(wanted: int | None, devices: Devices, streams: bool) -> int:
    if wanted is None:
        # A loop costs a CPU more than the calls it saves; elsewhere the number is assumed. Large
        # images would have to wait for each other.
        return 1 if streams or devices.platform == "cpu" else 10
    require_number("parallel.steps_per_call", wanted, least=1, most=10_000, whole=True)
    return wanted
