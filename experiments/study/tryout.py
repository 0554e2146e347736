"""Tries a study and estimates its cost before it starts."""

import pathlib
import re
import tempfile

import afd_jax as afd
from afd_jax.engine.init import state_shapes
from afd_jax.reports.cost import flops_per_image, network_variables
from afd_jax.runs.assemble import Run, assemble
from afd_jax.runs.dry_run import planned
from afd_jax.runs.settings import smoke
from experiments.study.plan import Block, Job, Setting, Study


def try_all(study: Study, data_dir: str | None, wanted: str = "") -> None:
    """Trains the smoke form of every setting once, with its teachers, in a temporary folder.

    Args:
      study: to try.
      data_dir: folder of TFDS data sets.
      wanted: regular expression; only settings that match, such as "300 labels: AFD".

    Raises:
      SettingError: if a setting cannot work.
    """
    for block in study.blocks:
        for setting in block.settings:
            if re.search(wanted, str(Job(block, setting, (block.seeds[0],)))):
                with tempfile.TemporaryDirectory() as folder:
                    accuracy = _try(block, setting, pathlib.Path(folder), data_dir)
                print(f"{block.name}: {setting.name}: {accuracy}", flush=True)


def _try(block: Block, setting: Setting, root: pathlib.Path, data_dir: str | None) -> str:
    job = Job(block, setting, (block.seeds[0],))
    for before in job.needs():
        _try(before.block, before.setting, root, data_dir)
    config = smoke(job.config(root, data_dir))
    summary = afd.train(config, job.folder(root), show_progress=False)
    return "/".join(f"{100 * node['test_accuracy']:.1f} %" for node in summary["networks"])


def estimate(study: Study, tera_flops: float) -> str:
    """Hours of each block on one device, from the operations of its networks, as Markdown.

    A network counts as one forward pass and, for each optimizer that moves it, two more; heads,
    augmentation and evaluation are left out. No data are needed.

    Args:
      study: to estimate.
      tera_flops: the assumed speed of the device, in 10^12 operations per second.
    """
    lines = ["| block | runs | 10^15 operations | hours |", "|---|---|---|---|"]
    rows = []
    for block in study.blocks:
        each = [_operations(block, setting) for setting in block.settings]
        total = len(block.seeds) * sum(each)
        rows.append((block.name, len(block.seeds) * len(each), total))
    if len(rows) > 1:
        rows.append(("together", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    for name, runs, total in rows:
        hours = total / (tera_flops * 1e12) / 3600
        shown = f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
        lines.append(f"| {name} | {runs} | {total / 1e15:.1f} | {shown} |")
    return "\n".join(lines)


def _operations(block: Block, setting: Setting) -> float:
    """Of a run, and of those that it has to train first, but for other settings of the study."""
    root = pathlib.Path("nowhere")
    config = Job(block, setting, (block.seeds[0],)).config(root)
    if setting.teachers:  # by name: their folders are not there yet
        config.teachers = tuple(teacher.partition("@")[2] for teacher in setting.teachers)
    every = [*planned(config, root)]
    counted = every[-1:] if setting.teachers else every
    runs = [assemble(own.config, own.folder, outlined=True) for own in counted]
    return sum(run.total_steps * run.batch_size * sum(_of_networks(run)) for run in runs)


def _of_networks(run: Run) -> list[float]:
    states = state_shapes(run.plan).networks
    found = []
    for name, network in run.plan.networks.items():
        passes = 1 + 2 * len([u for u in states[name].optimizers if u != "discriminator"])
        variables = network_variables(states[name])
        found.append(passes * flops_per_image(run.plan, network.module, variables))
    return found
