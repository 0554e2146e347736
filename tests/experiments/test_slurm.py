"""The job script on a real SLURM of two nodes, where its packages are installed."""

import os
import shutil
import subprocess
import time

import pytest

from tests.running import ROOT

LAUNCH = ROOT / "experiments" / "launch"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)) or os.geteuid() != 0,
    reason="needs root, and Debian's slurm-wlm and munge",
)

RUN = (
    "--config.data.limit=192",
    "--config.batch_size=32",
    "--config.eval_batch_size=64",
    "--config.duration=400 steps",
    "--config.eval_every=200 steps",
    "--config.log_every=20 steps",
    "--config.checkpoint_every=20 steps",
    "--config.method.name=dml",
    "--config.graph=all_pairs",
)


def done(*command, **more):
    return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    folder = tmp_path / "slurm"
    script = LAUNCH / "local_slurm.sh"
    for name in [name for name in os.environ if name.startswith(("JAX_", "SLURM_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    monkeypatch.setenv("SLURM_PORT", str(20_000 + os.getpid() % 10_000))
    # With output to nowhere: its daemons would hold a pipe open.
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    try:
        subprocess.run([script, "start", folder], check=True, timeout=120, **quiet)
        yield lambda verb, node: subprocess.run([script, verb, folder, node], check=True, **quiet)
    finally:
        subprocess.run([script, "stop", folder], check=True, **quiet)


def job(number):
    """What SLURM knows: {"JobState": "RUNNING", ...}."""
    words = done("scontrol", "show", "job", number).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def until(true, seconds, log):
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            daemon = (log.parent / "slurm" / "slurmctld.log").read_text()
            said = log.read_text() if log.exists() else "no log"
            pytest.fail(f"{said}\n{done('scontrol', 'show', 'job')}\n{daemon}")
        time.sleep(0.5)


def test_a_job_is_stopped_by_its_limit_loses_a_node_and_finishes(tmp_path, cluster, monkeypatch):
    workdir, log = tmp_path / "run", tmp_path / "job.log"
    monkeypatch.setenv("FAULT", "slow:")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_CPU_COLLECTIVES_IMPLEMENTATION", "gloo")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    monkeypatch.setenv("XLA_FLAGS", flags)
    size = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1", "--cpus-per-task=1")
    limit = ("--time=2", "--signal=TERM@60", f"--output={log}", f"--chdir={ROOT}")
    config = f"{ROOT}/tests/faulty_config.py:tests.tiny:Tiny,tests.tiny:Wider"
    script = str(LAUNCH / "slurm.sbatch")
    number = done("sbatch", "--parsable", *size, *limit, script, config, str(workdir), *RUN).strip()

    def restarts():
        return int(job(number)["Restarts"])

    def says(words):
        return log.exists() and words in log.read_text()

    def begin():
        """Soon; SLURM would wait for two minutes."""
        until(lambda: job(number)["JobState"] == "PENDING", 60, log)
        time.sleep(5)  # a start in the same second as the stop is refused: "credential revoked"
        done("scontrol", "update", f"JobId={number}", "StartTime=now", "TimeLimit=60")

    # SLURM requeues a job, too, that a busy machine did not start in time.
    until(lambda: says("state saved; the same command continues"), 600, log)
    until(lambda: job(number)["JobState"] != "RUNNING", 60, log)
    first = restarts()
    assert first >= 1
    begin()
    before = log.read_text().count("/400  loss")
    until(lambda: log.read_text().count("/400  loss") >= before + 3, 300, log)
    cluster("kill", "node2")
    until(lambda: restarts() > first, 120, log)
    assert says("error: process 1 is gone")
    cluster("boot", "node2")
    begin()
    until((workdir / "summary.json").exists, 300, log)
    until(lambda: job(number)["JobState"] == "COMPLETED", 60, log)
    assert log.read_text().count("continuing") == 2
    assert "Check failure stack trace" not in log.read_text()
