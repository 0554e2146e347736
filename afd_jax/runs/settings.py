"""The settings of a run: what there is to set, and what a config file takes to set it.

A config file (see `configs/`) starts from `base_config()` and sets fields; the command line
overrides single ones: `--config.seed=1` (`afd_jax.runs.overrides`).
"""

from collections.abc import Sequence
from typing import Any

import ml_collections
from ml_collections.config_dict import placeholder

from afd_jax.errors import SettingError, one_of


def base_config() -> ml_collections.ConfigDict:
    """Every field that a config may set, with a neutral value."""
    return ml_collections.ConfigDict(
        {
            "seed": 0,
            "seeds": 1,  # so many runs side by side in one program, from `seed` upwards
            # Names of afd_jax.networks, or "package.module:Class". Nodes of the graph (equal names
            # get numbers: resnet8, resnet8_1), or one network in branches.
            "networks": ("resnet8", "resnet8"),
            # What the networks start from, one entry for each or one for all (none: at random): a
            # file of PyTorch weights, "resnet56.pth", or the folder of a finished run, "runs/a" or
            # "runs/a@resnet14". Parameters and BatchNorm statistics are taken; optimizers, their
            # schedules and all else begin anew.
            "init_from": (),
            # Frozen networks that teach the others: folders of finished runs, "runs/a" or, for one
            # of several nodes, "runs/a@resnet14"; files of PyTorch weights behind the name of
            # their network, "resnet56=resnet56.pth"; or names of networks, each trained first,
            # alone and by this recipe, in WORKDIR/teacher_0, ... As nodes they are called
            # "teacher", "teacher_1", ... A file does not say how its images were normalised: here
            # they are as config.data says.
            "teachers": (),
            # Import code that only the folders of `teachers` and `init_from` name
            # ("package.module:Class"), not these settings.
            "trust": False,
            # A chain of so many, each with the one before for its teacher, in WORKDIR/generation_1,
            # ... and the last in WORKDIR; the first has `teachers`, or the labels alone.
            "generations": 1,
            # "own" (of the method's paper), "cyclic", "all_pairs", "star", "none", or edges
            # (("source", "target"), ...) between nodes by name.
            "graph": "own",
            # Also train, on the same batches, a twin of every network that starts from the same
            # parameters and learns from the labels alone.
            "twins": False,
            # "name", one of afd_jax.methods or "package.module:Class", and that class's options.
            "method": {"name": "afd"},
            # How a step updates: run the networks again between the logit and the feature update;
            # augment the batch for each network or branch apart; how slowly averages move.
            "second_forward": False,
            "own_augmentation": False,
            "average_decay": 0.999,
            # Also keep a moving average of every network's parameters, "average of NAME".
            "averages": False,
            # Probability that each label spreads evenly over all classes, in every cross-entropy.
            "label_smoothing": 0.0,
            "optimizers": {
                "logit": _optimizer("sgd", 0.1, momentum=0.9, nesterov=False),
                "feature": _optimizer("adam", 1e-3),
                "discriminator": _optimizer("adam", 1e-3),
            },
            "data": {
                # "digits", "cifar10", "cifar100", "tfds:NAME"; or of your own: "folder",
                # "parquet", "arrays" (afd_jax.data.folder, .parquet, .sources).
                "name": "digits",
                # Folder of TFDS data sets (None: TFDS's own default), of images in folders of
                # classes, or of tables; .npz file for "arrays".
                "data_dir": placeholder(str),
                "download": False,
                "heldout": 0.0,  # share of the training set kept for model selection
                # Train on so many images only, as many of each class as can be (None: all).
                "labels": placeholder(int),
                "limit": placeholder(int),  # use only so many examples, for quick checks
                # Read from disk all along, for sets too large for memory ("tfds:NAME", "folder",
                # "parquet"): cut at random, resized and flipped by worker processes; needs Grain.
                "stream": False,
                # Side of the images. In memory: blocks of pixels are averaged, or, for "folder" and
                # "parquet", the shorter side is resized and the centre kept (None: as they are);
                # streamed: see above (None: 224).
                "image_size": placeholder(int),
                # Batches of two images of a class each; a class comes again after all others. For
                # sets in memory and an even batch size.
                "class_pairs": False,
                "workers": placeholder(int),  # processes that decode them; None: one for each core
                "mean": placeholder(tuple),  # per channel, of 1; None: from the training images
                "std": placeholder(tuple),
                "pad": 0,
                "pad_mode": "reflect",  # or "zero"
                "flip": False,
                "rotate": 0.0,  # by up to so many degrees, either way
                # On the devices, after the above: one operation of TrivialAugment for each image;
                # the probability that a box of an image is filled with random pixels; the alphas
                # of mixup and CutMix, which mix images and labels (of both, one for each batch).
                "trivial_augment": False,
                "erase": 0.0,
                "mixup": 0.0,
                "cutmix": 0.0,
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
            # End the run after so many evaluations in a row (0: never) in which what is watched on
            # the held-out images has not fallen below its least value, as a mean over students and
            # seeds: their "divergence" from who teaches them, KL at T = 1, or their
            # "cross_entropy". Numbers are those of the last step, not of the best. Schedules go by
            # the planned duration.
            "early_stopping": {"patience": 0, "watch": "divergence"},
            # Tools that get what metrics.jsonl gets: "tensorboard", "wandb".
            "writers": (),
            # "20 steps at 100" leaves a trace of them in WORKDIR/profile, for xprof and Perfetto.
            "profile": "",
            "parallel": {
                # "auto" (pmap on several devices, jit on one), "jit", "pmap", "shard_map".
                "mode": "auto",
                "devices": placeholder(int),  # None: all
                # At most so many steps without the host; None: 1 on CPUs, 10 elsewhere.
                "steps_per_call": placeholder(int),
                # Of several processes (--distributed): seconds after which one that is silent
                # counts as dead (assumed), and after which one that makes no step hangs (None: 20
                # times its longest pause, at least 600; assumed).
                "heartbeat_timeout": 30,
                "step_timeout": placeholder(float),
            },
        }
    )


def _optimizer(name: str, learning_rate: float, **options: Any) -> dict[str, Any]:
    """Settings of one optimizer; options are those of `engine.optimizers`."""
    return {
        "name": name,
        "learning_rate": learning_rate,
        "weight_decay": 0.0,
        "decay": "gradient",  # or "decoupled"
        "clip": placeholder(float),  # largest norm of the gradient; None: any
        **options,
        "schedule": {"name": "constant"},
    }


# The blocks whose keys depend on a name inside them; those are checked where they are used.
OPEN = (
    "method",
    *(
        f"optimizers.{update}{part}"
        for part in ("", ".schedule")
        for update in ("logit", "feature", "discriminator")
    ),
)


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
            if isinstance(value, ml_collections.ConfigDict) and path + key not in OPEN:
                if not isinstance(given[key], ml_collections.ConfigDict):
                    remedy = f"must hold the fields {', '.join(value)}"
                    raise SettingError(f"config.{path}{key}", given[key], remedy)
                check(given[key], value, f"{path}{key}.")

    check(config, base_config(), "")


def smoke(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Shrinks any config to about a minute on two CPU cores: it shows that all parts work."""
    config.seeds = min(config.seeds, 2)
    config.data.limit = 512
    if config.data.stream:
        config.data.image_size = min(config.data.image_size or 224, 64)
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
