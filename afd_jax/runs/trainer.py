"""One training run from settings to summary; reads from top to bottom."""

import os
import pathlib
from typing import Any

import jax
import ml_collections
from jax.experimental import multihost_utils

from afd_jax.data.extra import need
from afd_jax.engine.init import state_shapes
from afd_jax.errors import Diverged, Interrupted, SettingError, naming, require_path
from afd_jax.reports.cost import tree_bytes
from afd_jax.reports.curves import plot_curves
from afd_jax.reports.facts import graph_facts
from afd_jax.reports.summary import commit, summarise
from afd_jax.reports.terminal import table
from afd_jax.runs.assemble import Run, assemble
from afd_jax.runs.bucket import in_bucket, mirrored
from afd_jax.runs.checkpoint import Checkpoints
from afd_jax.runs.lock import claim_weights, claimed
from afd_jax.runs.loop import Loop
from afd_jax.runs.metrics import MetricsLog, Record, set_metrics_aside
from afd_jax.runs.overrides import as_json, read_config
from afd_jax.runs.prerequisites import prerequisites
from afd_jax.runs.profile import Profile, device_memory
from afd_jax.runs.program import prepared
from afd_jax.runs.signals import Stop, stop_signals
from afd_jax.runs.watchdog import Watchdog
from afd_jax.runs.workdir import Workdir, write_json
from afd_jax.runs.writers import Writers

_MUCH = 2**30  # bytes of a method's memory that are worth a word


def train(
    config: ml_collections.ConfigDict | str,
    workdir: str | pathlib.Path,
    *,
    show_progress: bool = True,
) -> Record:
    """Trains what the settings say, or continues it, and leaves everything in `workdir`.

    Writes config.json, data.json, graph.json, metrics.jsonl, checkpoints/, summary.json and
    curves.png. First trains what the run needs (teachers, generations), in folders below (see
    `runs.prerequisites`). The same call again continues after an interruption, and returns the
    summary of a finished run.

    Args:
      config: settings; or a config by name, "cifar100_afd:resnet32,resnet32", or file.
      workdir: folder of this run alone, or its address in a bucket, "gs://..." or "s3://...".
      show_progress: print a progress bar, or lines where there is no terminal.

    Returns:
      The summary, as in summary.json.

    Raises:
      SettingError: if a setting cannot work, before anything is compiled.
      Diverged: if a loss is not finite; the last checkpoint stays.
      Interrupted: after Ctrl-C or SIGTERM, when the state is on disk.
    """
    if isinstance(config, str):
        config = read_config(config)
    for package in ("matplotlib", "tqdm"):  # before hours of training, not after
        need(package, "workdir", str(workdir))
    shown = show_progress and jax.process_index() == 0
    if in_bucket(workdir):
        with mirrored(str(workdir)) as local:
            return _train_in(local, config, str(workdir), shown)
    folder = pathlib.Path(os.path.expanduser(workdir))
    require_path("--workdir", str(folder))
    return _train_in(folder, config, str(folder), shown)


def _train_in(
    path: pathlib.Path, config: ml_collections.ConfigDict, address: str, shown: bool
) -> Record:
    """Trains in a folder of this machine, which people know by its address."""
    # Settings: everything that can be wrong is found here.
    run = assemble(config, path)
    require_room(run)
    folder = Workdir(path)
    with claimed(folder, config, run):
        if not folder.summary.is_file() and _train_before(config, folder, shown):
            run = assemble(config, path)
        name = pathlib.PurePath(address if in_bucket(address) else path.resolve()).name
        with Writers(config.writers, path, name, as_json(config), run.seeds) as writers:
            return _train(run, folder, address, writers, shown)


def _train_before(config: ml_collections.ConfigDict, folder: Workdir, shown: bool) -> bool:
    """Trains teachers and the like, or finishes them; whether there are any."""
    before = prerequisites(config, folder.path)
    for own in before:
        if Workdir(own.folder).summary.is_file():
            continue
        if shown:
            print(f"first: {own.name}, in {own.folder}")
        try:
            train(own.config, own.folder, show_progress=shown)
        except (Diverged, Interrupted) as error:
            raise type(error)(f"{own.name}: {error}") from error
        if jax.process_count() > 1:  # until its files are there
            multihost_utils.sync_global_devices(str(own.folder))
    return bool(before)


def require_room(run: Run) -> None:
    """Raises SettingError for a state that does not fit into a device's memory.

    What a method remembers is said if it is much.
    """
    shapes = state_shapes(run.plan)
    sizes = {
        "networks": tree_bytes(shapes.networks) * len(run.seeds),
        "memory": tree_bytes(shapes.memory) * len(run.seeds),
    }
    name, there = type(run.plan.method).__name__, device_memory(run.devices.devices)
    words = f"{sizes['memory'] / 2**30:.1f} GiB of what {name} remembers"
    if there and sum(sizes.values()) > there:
        remedy = f"the state takes {sum(sizes.values()) / 2**30:.1f} GiB on each device ({words}), "
        remedy += f"which has {there / 2**30:.1f} GiB; take fewer seeds, networks or examples"
        raise SettingError("config.method.name", name, remedy)
    if sizes["memory"] > _MUCH and jax.process_index() == 0:
        print(f"note: each device keeps {words}")


def _train(run: Run, folder: Workdir, address: str, writers: Writers, shown: bool) -> Record:
    say = print if shown else _silent
    code = commit()  # of what runs, before anybody changes it

    # 1. Finished already?
    claim_weights(folder, run)
    if folder.summary.is_file():
        summary = folder.read_summary()
        say(f"{address} is finished; remove it or name another --workdir to train again")
        say(table(summary))
        return summary

    # 2. State: new, or the newest checkpoint.
    state = run.devices.put_state(run.initial_state())
    notes: dict[str, Any] = {"compile_seconds": 0.0, "train_seconds": 0.0, "timed_steps": 0}
    facts = graph_facts(run.plan)
    saved = Checkpoints(folder.checkpoints, folder.settings(), folder.require_own)
    watchdog = Watchdog(run.step_timeout, alone=jax.process_count() == 1)
    with watchdog, saved as checkpoints, stop_signals() as stop:
        restored = checkpoints.restore(state)
        if restored:
            state, notes = restored
            state = run.devices.put_state(state)
            say(f"continuing {address} at step {state.steps_done} of {run.total_steps}")
        elif run.plan.method.preparation_epochs and run.plan.graph.teachers:
            # 3. What the method trains on teachers first.
            say(f"preparing the teachers of {type(run.plan.method).__name__} ...")
            going_on = _unless(stop, watchdog)
            state = run.devices.put_state(prepared(run, jax.device_get(state), going_on))
            checkpoints.save(run.devices.shared_state(state), notes)
        if not restored and (aside := set_metrics_aside(folder.metrics)):
            say(f"no checkpoints in {address}: from the beginning; old metrics are in {aside}")
        log = MetricsLog(folder.metrics, state.steps_done)
        writers.begin(log.records, state.steps_done)

        # 4. Train.
        profile = Profile(run.profile, folder.path / "profile")
        parts = (log, writers, profile, checkpoints, notes, stop, watchdog, shown)
        steps = Loop(run, facts, *parts).go(state)

    # 5. Summary, from the last epoch.
    summary = summarise(
        facts,
        log.records,
        seeds=run.seeds,
        steps=steps,
        steps_per_epoch=run.steps_per_epoch,
        batch_size=run.batch_size,
        times=notes,
        device=_device(run),
        commit=code,
    )
    if steps < run.total_steps:
        summary["stopped_early"] = why = run.early_stopping.verdict(notes["watched"])
        assert why is not None
        say(
            f"stopped early at step {steps} of {run.total_steps}: in {why['patience']} evaluations "
            f"the held-out {why['watch']} has not fallen below {why['least']:.4g}, its value at "
            f"step {why['least_step']}"
        )
    if generations := folder.generations():
        summary["generations"] = generations
    if jax.process_index() == 0:
        writers.finish(summary)
        with naming(folder.curves):
            plot_curves(facts, log.records, folder.curves)
        write_json(folder.summary, summary)  # the last file: it says that the run is finished
    say(table(summary))
    say(f"written: {address}/ with summary.json, metrics.jsonl, curves.png, checkpoints/")
    return summary


def _unless(stop: Stop, watchdog: Watchdog) -> Any:
    def going_on(step: int) -> None:
        if step:
            watchdog.alive()
        else:
            watchdog.rest()
        if stop.wanted():
            raise Interrupted("stopped before the first step")

    return going_on


def _device(run: Run) -> str:
    first = run.devices.devices[0]
    kind = f"{os.cpu_count()} cores" if first.platform == "cpu" else first.device_kind
    return f"{len(run.devices.devices)} x {first.platform} ({kind}), {run.devices.mode}"


def _silent(*_: Any) -> None:
    pass
