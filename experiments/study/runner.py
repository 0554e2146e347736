"""Trains a study's missing runs."""

import contextlib
import fcntl
import math
import pathlib
import re
import shutil
import time
from collections.abc import Iterator

import jax

import afd_jax as afd
from afd_jax.errors import Diverged, SettingError
from experiments.study.locks import held
from experiments.study.plan import Job, Study, jobs
from experiments.study.records import Record, Results, records_of


@contextlib.contextmanager
def alone(root: pathlib.Path, part: tuple[int, int]) -> Iterator[None]:
    """Keeps a second runner of the same part out; the whole study and a part exclude each other.

    Raises:
      SettingError: if there is one.
    """
    whole = fcntl.LOCK_EX if part == (1, 1) else fcntl.LOCK_SH
    with contextlib.ExitStack() as opened:
        try:
            opened.enter_context(held(root / "lock", whole | fcntl.LOCK_NB))
            own = root / f"lock-{part[0]}-of-{part[1]}"
            opened.enter_context(held(own, fcntl.LOCK_EX | fcntl.LOCK_NB))
        except BlockingIOError as error:
            remedy = "this study runs already; wait for it, or start all as shares: --part=1/2 and"
            raise SettingError("--runs", str(root), f"{remedy} 2/2") from error
        yield


def missing(
    study: Study, results: Results, *, at_once: int = 1, part: tuple[int, int] = (1, 1)
) -> list[Job]:
    """The runs without records, those that have waited longest first.

    Args:
      study: to look at.
      results: what is there.
      at_once: seeds in one program.
      part: (which, of how many): a share of all runs, whatever is there already. Most of a seed's
        runs are in one share, so that it gives pairs to compare.
    """
    which, shares = part
    every = jobs(study, at_once)
    start, end = (n * len(every) // shares for n in (which - 1, which))
    return [job for job in every[start:end] if not _is_recorded(job, results)]


def require_match(study: Study, only: str) -> None:
    """Raises SettingError if a pattern fits no run of the study."""
    every = [str(job) for job in jobs(study, at_once=1)]
    if not any(re.search(only, job) for job in every):
        raise SettingError("--only", only, f"fits no run of this study, such as {every[0]!r}")


def _is_recorded(job: Job, results: Results) -> bool:
    return all(results.has(job.block.name, job.setting.name, seed) for seed in job.seeds)


def train_missing(
    study: Study,
    results: Results,
    root: pathlib.Path,
    *,
    seconds: float,
    at_once: int = 1,
    part: tuple[int, int] = (1, 1),
    only: str = "",
    data_dir: str | None = None,
) -> bool:
    """Trains one run after the other until all are done or the time is up.

    An interrupted run resumes from its last checkpoint. The checkpoints of a finished run are kept
    only if another setting may take its teachers from it. After a run that diverges the others go
    on.

    Args:
      study: to train.
      results: receives the records.
      root: folder of the runs.
      seconds: no run starts later than this.
      at_once: seeds in one program.
      part: (which, of how many).
      only: regular expression; train only settings that match, such as "300 labels: AFD".
      data_dir: folder of TFDS data sets, for studies that read one.

    Returns:
      Whether all that was to be trained is.

    Raises:
      SettingError: if a setting cannot work.
      afd_jax.errors.Diverged: at the end, if a run did.
      afd_jax.errors.Interrupted: after Ctrl-C or SIGTERM, once the run's state is saved.
    """
    end = time.monotonic() + seconds
    every = missing(study, results, at_once=at_once, part=part)
    todo = [job for job in every if re.search(only, str(job))]
    diverged, in_time = [], True
    for n, job in enumerate(todo):
        with _turn(job.folder(root)):
            if time.monotonic() > end:
                in_time = False
                break
            results.refresh()
            if _is_recorded(job, results):  # by another share, which overlaps with this one
                continue
            print(f"[{n + 1} of {len(todo)} missing] {job}", flush=True)
            try:
                folder = _train(job, root, data_dir)
                new = records_of(folder, job.block, job.setting)
                _compare_teachers(job, new, results)
                results.add(new)
                if not job.may_teach(study):
                    shutil.rmtree(folder)
            except Diverged as error:
                diverged.append(f"{job}: {error}")
                print(f"diverged: {error}", flush=True)
    if diverged:
        raise Diverged("; ".join(diverged))
    return in_time


def forget_runs(study: Study, setting: str, root: pathlib.Path) -> None:
    """Removes the runs of a setting in all blocks, which may have stayed for their teachers."""
    for job in jobs(study, at_once=1):
        if job.setting.name == setting:
            shutil.rmtree(job.folder(root).parent, ignore_errors=True)


def _train(job: Job, root: pathlib.Path, data_dir: str | None) -> pathlib.Path:
    """The folder of a run, trained after the runs it needs.

    A finished one is checked to have these settings.
    """
    for before in job.needs():
        with _turn(before.folder(root)):
            _train(before, root, data_dir)
    folder = job.folder(root)
    afd.train(job.config(root, data_dir), folder, show_progress=False)
    jax.clear_caches()  # each run compiles its own; hundreds of them would fill the memory
    return folder


def _compare_teachers(job: Job, new: list[Record], results: Results) -> None:
    """Says so if a teacher is not the network on record, its run having been trained again."""
    block = (job.block.teachers or job.block).name
    for teacher in job.setting.teachers:
        setting, _, node = teacher.partition("@")
        known = {r["seed"]: r["nodes"].get(node) for r in results.of(block, setting)}
        for own in new:
            noted = known.get(own["seed"])
            if noted and not _has_teacher(own, noted["cross_entropy"]):
                words = f"seed {own['seed']} of {setting!r} was trained again for {job}"
                print(f"note: {words}; its record is of the earlier run", flush=True)


def _has_teacher(record: Record, cross_entropy: float) -> bool:
    """Whether a run had a teacher of this cross-entropy on the test set."""
    used = [n["cross_entropy"] for n in record["nodes"].values() if n["role"] == "teacher"]
    return any(math.isclose(cross_entropy, value, rel_tol=1e-3) for value in used)


def _turn(folder: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    """Waits until no other part trains this run, which may be a teacher in several parts."""
    return held(folder.with_name(f"{folder.name}.lock"))
