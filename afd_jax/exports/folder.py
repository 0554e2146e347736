"""From the folder of a run to the folder of an exported network."""

import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import flax
import jax

import afd_jax
from afd_jax.errors import SettingError
from afd_jax.exports import check
from afd_jax.exports.card import card
from afd_jax.exports.write import FORMATS, require_formats, write
from afd_jax.networks.functional import functional
from afd_jax.runs.bucket import at_hand
from afd_jax.runs.trained import Trust, load
from afd_jax.runs.workdir import Workdir, read_json, write_json

_ASIDE = ".export-"


def export(
    workdir: str | pathlib.Path,
    to: str | pathlib.Path,
    *,
    node: str | None = None,
    seed: int | None = None,
    formats: Sequence[str] = FORMATS,
    force: bool = False,
    trust: Trust = False,
) -> dict[str, dict[str, Any]]:
    """Writes one network of a run with a description of it, and checks every file.

    Args:
      workdir: folder of the run, finished or not; nothing is written there.
      to: folder to write; new, empty, or of an earlier export of a node of that name.
      node: as for `afd_jax.load`.
      seed: likewise.
      formats: some of `exports.write.FORMATS`.
      force: write into a folder that holds something else.
      trust: as for `afd_jax.load`.

    Returns:
      As `exports.write.write`.

    Raises:
      SettingError: if there is no such run, node, seed or format, or `to` holds something else.
      WrongOutputsError: if a file does not give the trained network's probabilities.
    """
    require_formats(formats)
    workdir = at_hand(workdir)
    network = load(workdir, node, seed=seed, trust=trust)
    run, folder = Workdir(workdir), pathlib.Path(to)
    _require_free(folder, network.name, force)
    settings, data = run.settings(), run.read_data()
    graph = run.read_graph() if run.graph.is_file() else {"nodes": [], "edges": []}
    summary = run.read_summary() if run.summary.is_file() else {}
    own: dict[str, Any] = next((n for n in graph["nodes"] if n["name"] == network.name), {})
    now = {"afd_jax": afd_jax.__version__, "flax": flax.__version__}
    versions = {**summary.get("versions", now), "jax": summary.get("jax_version", jax.__version__)}
    facts = {
        "node": network.name,
        "network": functional(network.module).name,
        "role": own.get("role", "student"),
        "classes": data["classes"],
        "seed": settings["seed"] if seed is None else seed,
        "note": _note(network.step, summary.get("steps")),
        "method": settings["method"]["name"],
    }
    described = {
        **facts,
        "image_shape": data["image_shape"],
        "edges": graph["edges"],
        "data": {"name": settings["data"]["name"], "size": _size(data)},
        "accuracy": {} if facts["note"] else _accuracy(summary, network.name),
        "commit": summary.get("commit"),
        "versions": versions,
        "exported_with": {**now, "jax": jax.__version__},
    }
    folder.mkdir(parents=True, exist_ok=True)
    replaces = (folder / check.ARCHITECTURE).is_file()  # else files of these names are not ours
    # Written aside, so that an earlier export stays if this one fails; in the folder, which may be
    # on another disk than those around it.
    with tempfile.TemporaryDirectory(prefix=_ASIDE, dir=folder) as scratch:
        aside = pathlib.Path(scratch)
        files = write(network, aside, formats, facts)
        write_json(aside / "settings.json", settings)
        (aside / "README.md").write_text(card(described, files), encoding="utf-8")
        written = [file.name for file in aside.iterdir()]
        for name in written:
            (aside / name).replace(folder / name)
        for earlier in {*check.FILES.values()} - {*written} if replaces else ():  # other formats
            (folder / earlier).unlink(missing_ok=True)
    return files


def _require_free(folder: pathlib.Path, node: str, force: bool) -> None:
    if force or not folder.exists():
        return
    if folder.is_dir() and all(path.name.startswith(_ASIDE) for path in folder.iterdir()):
        return  # empty, but for what an export that was killed has left
    if folder.is_dir() and (folder / check.ARCHITECTURE).is_file():
        try:
            earlier = read_json(folder / check.ARCHITECTURE).get("node")
        except SettingError as error:
            remedy = f"its {check.ARCHITECTURE} is damaged; name another folder, or add --force"
            raise SettingError("--to", str(folder), remedy) from error
        if earlier == node:
            return
        remedy = f"holds {earlier!r}, this is {node!r}; name another folder, or add --force"
        raise SettingError("--to", str(folder), remedy)
    raise SettingError("--to", str(folder), "holds other files; name a new folder, or add --force")


def _note(step: int | None, steps: int | None) -> str:
    """On weights that are not those at the end of the run."""
    if step == steps:
        return ""
    ended = "" if steps is None else f"; the run went on to step {steps}"
    return f"{'Not finished' if steps is None else 'An earlier checkpoint'}, step {step}{ended}"


def _size(data: Mapping[str, Any]) -> str:
    sizes = [f"{data[k]:,} {k}" for k in ("train", "test") if isinstance(data.get(k), int)]
    return f" ({', '.join(sizes)} images)" if sizes else ""


def _accuracy(summary: Mapping[str, Any], node: str) -> dict[str, str]:
    """Of the node and of its twin, with the seeds; nothing before a run is finished."""
    seeds = len(summary.get("seeds", [0]))
    found = {}
    for part in ("networks", "twins", "others"):
        for record in summary.get(part, []):
            if record["name"] == node:
                name = "test accuracy"
            elif part == "twins" and record["of"] == node:
                name = "test accuracy of the same alone"
            else:
                continue
            value = f"{100 * record['test_accuracy']:.2f} %"
            if (deviation := record.get("test_accuracy_deviation")) is not None:
                value += f" ± {100 * deviation:.2f} (mean and deviation of {seeds} seeds)"
            found[name] = value
    return found
