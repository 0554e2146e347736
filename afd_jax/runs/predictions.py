"""What the networks of a run predict: from its newest checkpoint, on its own data or on images."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from afd_jax.data import NumpyBatch, Splits, Streamed, eval_batches, eval_order, eval_stream
from afd_jax.data.pictures import picture_batches, picture_files
from afd_jax.engine.devices import Devices, make_devices
from afd_jax.errors import SettingError, UnreadableError, one_of, require_number, within
from afd_jax.networks.functional import run as run_network
from afd_jax.networks.outputs import as_nodes
from afd_jax.runs.assemble import load_splits
from afd_jax.runs.trained import TrainedRun, Trust, open_run

SPLITS = ("train", "heldout", "test")


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions of one seed's networks.

    Attributes:
      probabilities: [examples, classes] float32 by node.
      labels: [examples] int32; None for images without labels.
      examples: of each its row in the split, or its path below the folder of images.
      class_names: of all classes; numbers if the data have no names.
      roles: of the nodes, as in graph.json.
      seed: of the run.
      step: of the checkpoint.
      sha256: digest of the run's data; None for a folder of images.
      unreadable: what is wrong with the images that could not be read, by path below the folder;
        they are not among the examples.
    """

    probabilities: Mapping[str, np.ndarray]
    labels: np.ndarray | None
    examples: Sequence[str]
    class_names: Sequence[str]
    roles: Mapping[str, str]
    seed: int
    step: int
    sha256: str | None
    unreadable: Mapping[str, str] = dataclasses.field(default_factory=dict)


def predict(
    workdir: str | pathlib.Path,
    split: str = "test",
    *,
    images: str | pathlib.Path | None = None,
    seed: int | None = None,
    batch_size: int | None = None,
    data_dir: str | None = None,
    trust: Trust = False,
) -> Predictions:
    """Predictions of one seed, the first if None; else as `predict_seeds`."""
    run = open_run(workdir, trust=trust)
    (only,) = predict_seeds(
        workdir,
        split,
        images=images,
        seeds=[run.seeds[0] if seed is None else seed],
        batch_size=batch_size,
        data_dir=data_dir,
        trust=trust,
    )
    return only


def predict_seeds(
    workdir: str | pathlib.Path,
    split: str = "test",
    *,
    images: str | pathlib.Path | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    data_dir: str | None = None,
    trust: Trust = False,
) -> list[Predictions]:
    """Runs every network of a run's newest checkpoint over a set of images, without augmentation.

    Nothing is written to the folder. Frozen teachers are left out; they have their own folders.

    Args:
      workdir: folder of the run.
      split: "test", "heldout" or "train", of the data that the run was trained with.
      images: a folder of image files to take in place of a split.
      seeds: which of the run's seeds; all if None.
      batch_size: images at a time; that of the run's evaluations if None.
      data_dir: where the data are now, if they have moved; as `config.data.data_dir`.
      trust: as for `afd_jax.load`.

    Returns:
      One item per seed.

    Raises:
      SettingError: if there is no run, no checkpoint, no such seed or split, if the split is empty,
        or if the data cannot be found or are not those of the run.
      UnreadableError: for a damaged image of a streamed set, or if all of a folder are damaged.
    """
    run = open_run(workdir, trust=trust)
    seeds = run.seeds if seeds is None else seeds
    for seed in seeds:
        run.require_seed(seed)
    if split not in SPLITS:
        raise SettingError("split", split, one_of(split, SPLITS))
    if batch_size is not None:
        require_number("batch_size", batch_size, least=1, whole=True)
    roles = node_roles(run)
    step, by_seed = run.variables(list(run.networks))
    source = _pictures(run, images) if images is not None else _split(run, split, data_dir)
    devices = make_devices("jit", 1)
    program = _program(run, devices)
    placed = [devices.put_state(by_seed[seed]) for seed in seeds]
    found: list[list[dict[str, np.ndarray]]] = [[] for _ in seeds]
    labels = []
    for batch in source.batches(batch_size or source.batch_size):
        mask = batch["mask"]
        if "label" in batch:
            labels.append(batch["label"][mask])
        sent = devices.put_batch({"image": batch["image"]})
        for own, variables in zip(found, placed, strict=True):
            result = jax.device_get(program(variables, sent))
            own.append({node: p[mask] for node, p in result.items()})
    lost = source.unreadable
    if not any(len(p) for own in found[0] for p in own.values()):
        file, words = next(iter(lost.items()))
        raise UnreadableError(f"no image in {images} can be read, such as {file}: {words}")
    back = slice(None) if source.order is None else np.argsort(source.order)
    names = run.data.get("class_names") or [str(i) for i in range(run.data["classes"])]
    return [
        Predictions(
            probabilities={n: np.concatenate([p[n] for p in own])[back] for n in run.nodes},
            labels=np.concatenate(labels)[back] if labels else None,
            examples=[name for name in source.examples if name not in lost],
            class_names=names,
            roles=roles,
            seed=seed,
            step=step,
            sha256=source.sha256,
            unreadable=lost,
        )
        for seed, own in zip(seeds, found, strict=True)
    ]


def _program(run: TrainedRun, devices: Devices) -> Callable[..., dict[str, jax.Array]]:
    """(variables by network, batch) to probabilities by node, as an evaluation has them."""
    recipe = run.recipe

    def step(variables: Any, batch: Any, *, axis_name: str | None) -> dict[str, jax.Array]:
        images, found = recipe.normalise(batch["image"]), {}
        for name, network in run.networks.items():
            result, _ = run_network(network.module, variables[name], images, {}, False)
            for node, output in zip(network.nodes, as_nodes(result), strict=True):
                found[node] = jax.nn.softmax(output.logits.astype(jnp.float32))
        return found

    program: Callable[..., dict[str, jax.Array]] = devices.compile(step, donate=False)
    return program


def node_roles(run: TrainedRun) -> dict[str, str]:
    """The role of each node that has predictions, as in graph.json.

    Raises:
      SettingError: if that file is not there.
    """
    if not run.folder.graph.is_file():
        remedy = "no such file; put a copy back, or let afd-train continue the run"
        raise SettingError("workdir", str(run.folder.graph), remedy)
    nodes = run.folder.read_graph()["nodes"]
    return {node["name"]: node["role"] for node in nodes if node["name"] in run.nodes}


@dataclasses.dataclass(frozen=True)
class _Source:
    """Images to predict.

    Attributes:
      batches: from a batch size to batches with "image" and "mask", perhaps "label".
      batch_size: unless another is asked for.
      examples: a name for each.
      order: in which the batches go through them; None: one after the other.
      sha256: of the run's data.
      unreadable: by name, what is wrong with those that could not be read; known when all batches
        are made.
    """

    batches: Callable[[int], Iterator[NumpyBatch]]
    batch_size: int
    examples: Sequence[str]
    order: np.ndarray | None = None
    sha256: str | None = None
    unreadable: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _pictures(run: TrainedRun, folder: str | pathlib.Path) -> _Source:
    shape: Any = tuple(run.data["image_shape"])
    folder = os.path.expanduser(folder)
    # Names that are not UTF-8 could not be printed.
    files = {
        file: file.relative_to(folder).as_posix().encode(errors="backslashreplace").decode()
        for file in picture_files(folder)
    }
    unreadable: dict[str, str] = {}

    def batches(size: int) -> Iterator[NumpyBatch]:
        lost: dict[pathlib.Path, str] = {}
        streamed = run.config["data"]["stream"]
        yield from picture_batches([*files], size, shape, streamed=streamed, unreadable=lost)
        unreadable.update({files[file]: words for file, words in lost.items()})

    size = min(run.config["eval_batch_size"], len(files))
    return _Source(batches, size, [*files.values()], unreadable=unreadable)


def _split(run: TrainedRun, split: str, data_dir: str | None) -> _Source:
    splits = _data(run, data_dir)
    examples = getattr(splits, split)
    if not len(examples):
        remedy = "the run has no such images (config.data.heldout = 0); choose test or train"
        raise SettingError("split", split, remedy)
    # As in training, where the same batches give the same rounding.
    largest = max(len(splits.heldout), len(splits.test))

    def batches(size: int) -> Iterator[NumpyBatch]:
        if isinstance(examples, Streamed):
            return eval_stream(examples, size)
        return eval_batches(examples, size)

    rows, order = [str(row) for row in range(len(examples))], eval_order(len(examples))
    size = min(run.config["eval_batch_size"], largest)
    return _Source(batches, size, rows, order, splits.digest)


def _data(run: TrainedRun, data_dir: str | None) -> Splits:
    """The data of a run, if they are the same as then; nothing is downloaded."""
    settings = {**run.config["data"], "download": False}
    if data_dir is not None:
        settings["data_dir"] = data_dir
    try:
        with within("config"):
            splits = load_splits(settings)
    except SettingError as error:
        if error.field != "config.data.data_dir":
            raise
        remedy = f"{error.remedy}; if the data have moved, name their place (--data-dir)"
        raise SettingError("data_dir", error.value, remedy) from error
    if splits.digest != run.data["sha256"]:
        remedy = f"holds other data than the run in {run.folder.path} was trained with (sha256 was "
        remedy += f"{run.data['sha256']}, is {splits.digest}); name the place of that data "
        raise SettingError("data_dir", settings["data_dir"], f"{remedy}(--data-dir)")
    return splits
