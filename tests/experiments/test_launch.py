"""Launch scripts: ShellCheck, Kubernetes' own schemas, and a stand-in for gcloud."""

import copy
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from tests.running import ROOT

FOLDER = ROOT / "experiments" / "launch"
SHELL = sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".sh", ".sbatch"))
K8S = runpy.run_path(str(FOLDER / "k8s.py"))
VALUES = K8S["read_values"](FOLDER / "k8s.yaml")


@pytest.mark.parametrize("name", SHELL)
def test_shell_scripts_are_clean(name):
    shellcheck = shutil.which("shellcheck", path=os.path.dirname(sys.executable))
    shellcheck = shellcheck or shutil.which("shellcheck")
    checks = [shellcheck] if shellcheck else ["bash", "-n"]
    done = subprocess.run([*checks, FOLDER / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def fits(manifest):
    """Raises unless the published schema of its kind has all its fields."""
    validate = pytest.importorskip("kubernetes_validate")
    validate.validate(manifest, validate.latest_version(), strict=True)


def test_the_job_fits_the_schemas_of_kubernetes():
    service, job = K8S["job"](VALUES)
    fits(service)
    fits(job)
    wrong = copy.deepcopy(job)
    wrong["spec"]["complitions"] = 2
    with pytest.raises(Exception, match="complitions"):
        fits(wrong)


def test_the_jobs_of_a_jobset_fit_the_schemas_of_kubernetes():
    (jobset,) = K8S["jobset"](VALUES)
    (jobs,) = jobset["spec"]["replicatedJobs"]
    head = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
    fits({**head, **jobs["template"]})
    # The first pod's name is made of the names of the set, its jobs, and two numbers.
    (container,) = jobs["template"]["spec"]["template"]["spec"]["containers"]
    first = f"{jobset['metadata']['name']}-{jobs['name']}-0-0"
    first += f".{jobset['spec']['network']['subdomain']}:8476"
    assert container["env"][0] == {"name": "JAX_COORDINATOR_ADDRESS", "value": first}


@pytest.mark.parametrize("kind", ["job", "jobset"])
def test_the_manifest_is_yaml_and_runs_the_command(kind):
    command = [sys.executable, FOLDER / "k8s.py", kind, FOLDER / "k8s.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *_, last = yaml.safe_load_all(done.stdout)
    assert [last] == K8S[kind](VALUES)[-1:]
    assert "&id" not in done.stdout and "--distributed" in done.stdout


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Afd"}, "name = 'Afd': 1 to 40 of a-z"),
        ({"processes": 0}, "processes = 0: must be at least 1"),
        ({"gpus": 1}, "missing or unknown: gpus"),
        ({"settings": "--config.seed=1"}, "not of the kind in k8s.yaml"),
    ],
)
def test_wrong_values(tmp_path, change, message):
    (tmp_path / "v.yaml").write_text(yaml.safe_dump(VALUES | change))
    command = [sys.executable, FOLDER / "k8s.py", "job", tmp_path / "v.yaml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr


GCLOUD = """#!/usr/bin/env bash
# Notes what it is told. A slice lives until it has trained twice: the first time it is taken away.
echo "$*" >>"$NOTES"
case "$*" in
*create*) echo ACTIVE >"$NOTES.state" ;;
*delete*) rm "$NOTES.state" ;;
*describe*) cat "$NOTES.state" ;;
*afd_jax*)
  if [ "$(grep -c afd_jax "$NOTES")" -eq 1 ]; then echo SUSPENDED >"$NOTES.state" && exit 255; fi
  ;;
esac
"""


def test_a_queued_tpu_that_is_taken_away_is_asked_for_again(tmp_path):
    (tmp_path / "gcloud").write_text(GCLOUD)
    (tmp_path / "gcloud").chmod(0o755)
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NOTES": str(tmp_path / "notes")}
    own |= {"SETUP": "mount it", "SPOT": "--spot", "EVERY": "0"}
    command = [FOLDER / "tpu_queue.sh", "mine", "zone-a", "v5litepod-16", "digits_afd", "/b/run"]
    subprocess.run([*command, "--config.seed=1"], env=os.environ | own, check=True, timeout=60)
    notes = (tmp_path / "notes").read_text().splitlines()
    told = [line for line in notes if "describe" not in line]
    verbs = ["create", "mount it", "afd_jax", "delete"] * 2
    assert len(told) == 8 and all(v in line for v, line in zip(verbs, told, strict=True)), told
    assert told[0].endswith(
        "--accelerator-type=v5litepod-16 --runtime-version=tpu-ubuntu2204-base --spot"
    )
    run = "--config=digits_afd --workdir=/b/run --distributed --config.seed=1"
    assert told[2].endswith(run) and told[2] == told[6]


def test_a_queued_tpu_whose_request_fails_is_not_asked_for_for_ever(tmp_path):
    (tmp_path / "gcloud").write_text(GCLOUD.replace("ACTIVE", "FAILED"))
    (tmp_path / "gcloud").chmod(0o755)
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NOTES": str(tmp_path / "notes")}
    command = [FOLDER / "tpu_queue.sh", "mine", "zone-a", "v5litepod-16", "digits_afd", "/b/run"]
    own |= {"SETUP": "mount it", "EVERY": "0"}
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "mine: the request failed" in done.stderr
    assert (tmp_path / "notes").read_text().count("create") == 1


@pytest.mark.parametrize("status", ["75", "130", "255"])
def test_a_slice_whose_loss_is_seen_late_is_asked_for_again(status, tmp_path):
    lost = 'echo SUSPENDED >"$NOTES.state"'
    slow = GCLOUD.replace(f"{lost} && exit 255", f"(sleep 1; {lost}) & exit {status}")
    assert slow != GCLOUD
    (tmp_path / "gcloud").write_text(slow)
    (tmp_path / "gcloud").chmod(0o755)
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "NOTES": str(tmp_path / "notes")}
    own |= {"SETUP": "mount it", "EVERY": "3"}
    command = [FOLDER / "tpu_queue.sh", "mine", "zone-a", "v5litepod-16", "digits_afd", "/b/run"]
    subprocess.run(command, env=os.environ | own, check=True, timeout=60)
    assert (tmp_path / "notes").read_text().count("create") == 2


STAND_IN = """#!/usr/bin/env bash
trap 'echo "$JAX_PROCESS_ID INT" >> "$LOG"' INT
trap 'echo "$JAX_PROCESS_ID TERM" >> "$LOG"; exit 130' TERM
echo begun >> "$LOG"
[ -n "${CUDA_VISIBLE_DEVICES:-}" ] && [ "${FAILS:-}" = 2 ] &&
  echo "$JAX_PROCESS_ID has gpu $CUDA_VISIBLE_DEVICES at $JAX_COORDINATOR_ADDRESS" >> "$LOG"
[ "${FAILS:-}" = "$JAX_PROCESS_ID" ] && exit 3
[ -n "${FAILS:-}" ] && { sleep 0.5; exit 0; }
while :; do sleep 0.1; done
"""


# A job in the background of a shell ignores Ctrl-C, one under nohup the end of its terminal, and so
# would all that it starts.
HEEDING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def two_processes(tmp_path):
    """Begins multi_gpu.sh with a stand-in for Python; (its process, the stand-in's log)."""
    (tmp_path / "python").write_text(STAND_IN)
    (tmp_path / "python").chmod(0o755)
    log = tmp_path / "log"
    path = f"{tmp_path}:{os.environ['PATH']}"

    def begin(**more):
        own = {**os.environ, "PATH": path, "LOG": str(log), "PROCESSES": "2", **more}
        line = [sys.executable, "-c", HEEDING, "bash", FOLDER / "multi_gpu.sh", "config", "workdir"]
        return subprocess.Popen(line, env=own, start_new_session=True), log

    return begin


@pytest.mark.parametrize("process", ["0", "1"])
def test_a_process_that_fails_gives_its_exit_code(process, two_processes):
    assert two_processes(FAILS=process)[0].wait(timeout=60) == 3


def test_processes_take_the_gpus_that_are_given_and_a_port_of_their_own(two_processes):
    seen = []
    for _ in range(2):
        run, log = two_processes(FAILS="2", CUDA_VISIBLE_DEVICES="4,5,6")
        assert run.wait(timeout=60) == 0
        seen.append({line for line in log.read_text().splitlines() if "gpu" in line})
        log.unlink()
    gpus = [{line.split(" at ")[0] for line in each} for each in seen]
    assert gpus == [{"0 has gpu 4", "1 has gpu 5"}] * 2
    assert len({line.split(" at ")[1] for each in seen for line in each}) == 2
    run, log = two_processes(CUDA_VISIBLE_DEVICES="4")
    assert run.wait(timeout=60) == 2 and not log.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_of_the_terminal_reaches_every_process_once(number, two_processes):
    run, log = two_processes()
    begin = time.monotonic()
    while not log.exists() or log.read_text().count("begun") < 2:
        assert time.monotonic() - begin < 60
        time.sleep(0.1)
    os.killpg(run.pid, number)  # as a terminal does, for Ctrl-C or when it is closed
    assert run.wait(timeout=60) == 130
    assert sorted(log.read_text().splitlines()) == ["0 TERM", "1 TERM", "begun", "begun"]
