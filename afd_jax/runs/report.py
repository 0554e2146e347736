"""Gathers what a report shows out of the folders of runs."""

import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from afd_jax.data.extra import need
from afd_jax.engine.optimizers import SCHEDULES
from afd_jax.errors import SettingError, UnreadableError
from afd_jax.reports.page.records import RunRecords, Sights
from afd_jax.runs.bucket import at_hand
from afd_jax.runs.choices import call
from afd_jax.runs.durations import to_steps
from afd_jax.runs.metrics import read_metrics
from afd_jax.runs.overrides import as_json
from afd_jax.runs.settings import base_config
from afd_jax.runs.trained import Trust
from afd_jax.runs.workdir import Workdir

_SIGHTS = 6  # images, at most four of them that networks disagree on
_POINTS = 200  # of a learning rate's curve


def gather(
    folders: Sequence[str | pathlib.Path],
    *,
    images: bool = True,
    seed: int | None = None,
    data_dir: str | None = None,
    trust: Trust = False,
) -> list[RunRecords]:
    """The records of runs, finished or not; nothing is written to their folders.

    Args:
      folders: of the runs.
      images: also predict the test images from the newest checkpoint. What cannot be done, as the
        data are elsewhere, say, is left out, and `missing` says why.
      seed: whose predictions; the first if None.
      data_dir: where the data are now, if they have moved.
      trust: as for `afd_jax.load`.

    Raises:
      SettingError: if a folder holds no run, a file in it is damaged, or a run has no such seed.
    """
    names = _short([pathlib.Path(folder) for folder in folders])
    runs = [_records(f, n) for f, n in zip(folders, names, strict=True)]
    for run in runs if seed is not None else ():
        if seed not in run.seeds:
            remedy = f"the run in {run.folder} has the seeds {run.seeds[0]} to {run.seeds[-1]}"
            raise SettingError("--seed", seed, remedy)
    if not images:
        return runs
    first = {run.name: run.seeds[0] if seed is None else seed for run in runs}
    return [_with_images(run, first[run.name], data_dir, trust) for run in runs]


def _short(folders: Sequence[pathlib.Path]) -> list[str]:
    """The last parts of paths, as many as tell them apart.

    >>> _short([pathlib.Path("runs/afd/0"), pathlib.Path("runs/dml/0")])
    ['afd/0', 'dml/0']
    """
    parts = [folder.resolve().parts for folder in folders]
    most = max(map(len, parts))
    for count in range(1, most + 1):
        names = ["/".join(own[-count:]) for own in parts]
        if len({*names}) == len(names):
            return names
    raise SettingError("workdir", [str(f) for f in folders], "name each folder once")


def _records(asked: str | pathlib.Path, name: str) -> RunRecords:
    folder = Workdir(at_hand(asked))
    for file in (folder.config, folder.graph, folder.data):
        if not file.is_file():
            remedy = f"no run in this folder (no {file.name})"
            raise SettingError("workdir", str(asked), remedy)
    settings, data = folder.settings(), folder.read_data()
    metrics = list(read_metrics(folder.metrics))
    defaults = base_config()
    defaults.method = {"name": settings["method"]["name"]}
    return RunRecords(
        name=name,
        folder=str(asked),
        settings=settings,
        defaults=as_json(defaults, imports=False),
        facts=folder.read_graph(),
        data=data,
        metrics=metrics,
        summary=folder.read_summary() if folder.summary.is_file() else None,
        rates=_rates(settings, data, metrics),
        generations=folder.generations(),
        teachers=folder.noted_teachers(),
    )


def _rates(
    settings: Mapping[str, Any], data: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]]
) -> dict[str, list[tuple[float, float]]]:
    """Learning rates of the updates that the run has made, over the epochs of the whole run."""
    marks = (key.partition("/gradient_norm/") for record in metrics for key in record)
    made = {update for _, mark, update in marks if mark}
    size, examples = settings["batch_size"], data["train"]
    steps = to_steps("duration", settings["duration"], batch_size=size, examples=examples)
    places = sorted({*np.linspace(0, steps - 1, min(steps, _POINTS)).round().astype(int).tolist()})
    found = {}
    for update, options in settings["optimizers"].items():
        if update not in made:
            continue
        shape, rate = options["schedule"], options["learning_rate"]
        schedule = call("name", SCHEDULES, shape, rate, steps)
        found[update] = [(p / (examples // size), float(schedule(p))) for p in places]
    return found


def _with_images(run: RunRecords, seed: int, data_dir: str | None, trust: Trust) -> RunRecords:
    """Adds what needs the test images and the newest checkpoint, or a sentence on why not."""
    from afd_jax.reports.analysis import analyse
    from afd_jax.runs.predictions import predict

    try:
        found = predict(run.folder, "test", seed=seed, data_dir=data_dir, trust=trust)
        assert found.labels is not None, "a test split has labels"
        own = analyse(found.labels, found.probabilities, found.class_names, found.roles)
    except (SettingError, UnreadableError, ModuleNotFoundError) as error:
        sentence = f"What needs the test images is left out: {error}."
        return dataclasses.replace(run, missing=[*run.missing, sentence])
    run = dataclasses.replace(run, analysis=own, seed=seed)
    try:
        sights, sentences = _sights(run, found, seed, data_dir, trust)
    except (SettingError, ValueError, ModuleNotFoundError) as error:
        sights, sentences = [], [f"Grad-CAM is left out: {error}."]
    return dataclasses.replace(run, sights=sights, missing=[*run.missing, *sentences])


def _sights(
    run: RunRecords, predictions: Any, seed: int, data_dir: str | None, trust: Trust
) -> tuple[list[Sights], list[str]]:
    """Grad-CAM of the networks on some test images, those they disagree on first.

    Returns:
      (the images, none if there is no network to see through; sentences on networks left out).
    """
    from afd_jax.reports.grad_cam import NoPathError
    from afd_jax.runs.assemble import load_splits

    if run.settings["data"]["stream"]:
        remedy = "Grad-CAM takes images from memory, and these are streamed"
        raise SettingError("config.data.stream", True, remedy)
    data = {**run.settings["data"], "download": False}
    test = load_splits(data if data_dir is None else {**data, "data_dir": data_dir}).test
    roles = {name: role for name, role in predictions.roles.items() if role != "ensemble"}
    classes = np.stack([predictions.probabilities[name].argmax(1) for name in roles])
    rows = chosen_rows(classes, predictions.labels)
    names = predictions.class_names
    seen, sentences = {}, []
    for name in roles:
        try:
            seen[name] = _seen(run.folder, name, seed, test.images[rows], trust)
        except NoPathError as error:
            sentences.append(f"Grad-CAM leaves out {name}: {error}.")
    sights = [
        Sights(
            label=names[test.labels[row]],
            image=_png(test.images[row]),
            networks={
                name: (
                    names[int(own.predicted[k])],
                    float(own.confidence[k]),
                    _png(test.images[row], np.asarray(own.heat[k])),
                )
                for name, own in seen.items()
            },
        )
        for k, row in enumerate(rows)
    ]
    return sights if seen else [], sentences


def chosen_rows(classes: np.ndarray, labels: np.ndarray) -> list[int]:
    """Images to show: first ones that networks put into different classes, then others.

    Args:
      classes: [networks, examples] predicted.
      labels: [examples].

    >>> chosen_rows(np.array([[0, 1, 2], [0, 1, 1]]), np.array([0, 1, 2]))
    [2, 0, 1]
    """
    disagree = (classes != classes[0]).any(0)
    # One of each class before a second, so that the images are of several.
    order = sorted(range(len(labels)), key=lambda r: (int((labels[:r] == labels[r]).sum()), r))
    first = [row for row in order if disagree[row]][: _SIGHTS - 2]
    rest = [row for row in order if not disagree[row]]
    return (first + rest)[:_SIGHTS]


def _seen(folder: str, name: str, seed: int, images: np.ndarray, trust: Trust) -> Any:
    import jax

    from afd_jax.networks.functional import functional
    from afd_jax.networks.outputs import Outputs, as_nodes
    from afd_jax.reports.grad_cam import grad_cam
    from afd_jax.runs.trained import load

    trained = load(folder, name, seed=seed, trust=trust)
    network = functional(trained.module)

    def run(images: jax.Array) -> Outputs:
        result, _ = network.apply(trained.variables, images, train=False)
        return as_nodes(result)[trained.output]

    normalised = trained.recipe.normalise(jax.numpy.asarray(images))
    return jax.device_get(jax.jit(lambda x: grad_cam(run, x))(normalised))


def _png(image: np.ndarray, heat: np.ndarray | None = None) -> bytes:
    """An image [height, width, channels] uint8, under heat [height, width] in [0, 1] if given."""
    pillow = need("PIL.Image", "report", "Grad-CAM")
    colour = np.repeat(image, 3, -1) if image.shape[-1] == 1 else image[..., :3]
    if heat is not None:
        import matplotlib

        warm = matplotlib.colormaps["inferno"](heat)[..., :3] * 255
        part = 0.25 + 0.5 * heat[..., None]
        colour = np.round((1 - part) * colour + part * warm).astype(np.uint8)
    file = io.BytesIO()
    pillow.fromarray(np.ascontiguousarray(colour)).save(file, format="png")
    return file.getvalue()
