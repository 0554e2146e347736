"""Several real processes: one dies, hangs or fails, or is told to stop; then the run goes on."""

import json
import shutil
import signal
import sys
import time

import jax
import numpy as np
import pytest

from afd_jax.runs import processes
from afd_jax.runs.watchdog import Watchdog
from tests.running import CONFIG, command, final_state
from tests.several import RUN, alive, ended, start, strike, until, worker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

LOST = "gone (ended, or not to be reached in time); the same command continues"
FAULTY = CONFIG.replace("digits_config", "faulty_config")
LONG = "--config.duration=400 epochs"


def weights(workdir):
    return final_state(workdir, settings=(*RUN, "--config.parallel.devices=1"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What two processes end with that nobody disturbs."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    codes, errors = ended(start(workdir, 2))
    assert codes == [0, 0], errors
    return weights(workdir)


@pytest.mark.parametrize(("victim", "counts"), [(0, (2, 4)), (1, (2, 1))])
def test_two_processes_one_killed_and_the_run_goes_on(tmp_path, whole, victim, counts, monkeypatch):
    monkeypatch.setenv("FAULT", "slow:1")  # so that it does not end before it is killed
    began = start(tmp_path / "run", 2, config=FAULTY)
    until(began[0], "step 12/24")
    own_worker = worker(began[victim])
    began[victim].kill()
    begin = time.monotonic()
    codes, errors = ended(began)
    assert time.monotonic() - begin < 30 and not alive(own_worker)
    assert codes[victim] == -9 and codes[1 - victim] == processes.EXIT_CODE, errors
    assert errors[1 - victim].strip().splitlines() == [
        f"error: process {victim} is {LOST} from the last checkpoint"
    ]
    for count in counts:  # of processes
        own = shutil.copytree(tmp_path / "run", tmp_path / str(count))
        again = start(own, count)
        until(again[0], f"continuing {own} at step")
        codes, errors = ended(again)
        assert codes == [0] * count, errors
        if count == 2:
            jax.tree.map(np.testing.assert_array_equal, weights(own).networks, whole.networks)
        else:
            for a, b in zip(
                jax.tree.leaves(weights(own).networks),
                jax.tree.leaves(whole.networks),
                strict=True,
            ):
                np.testing.assert_allclose(a, b, atol=1e-5)


def test_four_processes_of_which_the_system_kills_one(tmp_path):
    began = start(tmp_path / "run", 4, LONG)
    until(began[0], "step 8/")
    strike(began[2])
    codes, errors = ended(began)
    assert codes == [75, 75, 137, 75], errors
    assert "ended by SIGKILL (out of memory, perhaps); the same command" in errors[2]
    for index in (0, 1, 3):
        assert errors[index].strip() == f"error: process 2 is {LOST} from the last checkpoint"


@pytest.mark.parametrize("victim", [0, 1])
def test_two_processes_one_silent(tmp_path, victim):
    """As when a machine is frozen or its network is down."""
    began = start(tmp_path / "run", 2, LONG)
    until(began[0], "step 8/")
    strike(began[victim], signal.SIGSTOP)
    try:
        codes, errors = ended([began[1 - victim]])
    finally:
        strike(began[victim])
        ended(began)
    assert codes == [75] and f"error: process {victim} is {LOST}" in errors[0], errors


def faulty(tmp_path, monkeypatch, fault, *more):
    monkeypatch.setenv("FAULT", fault)
    codes, errors = ended(start(tmp_path / "run", 2, LONG, *more, config=FAULTY))
    assert not any("Check failure stack trace" in own for own in errors)
    return codes, errors


def test_not_a_number_in_one_of_two_processes_ends_both_alike(tmp_path, monkeypatch):
    codes, errors = faulty(tmp_path, monkeypatch, "nan:1")
    assert codes == [1, 1] and errors[0] == errors[1], errors
    assert errors[0].startswith("error: training diverged at step 4")


def test_one_of_two_processes_hangs(tmp_path, monkeypatch):
    codes, errors = faulty(tmp_path, monkeypatch, "hang:1", "--config.parallel.step_timeout=6.0")
    assert codes == [75, 75], errors
    assert any("error: no step for 6 s, in runs/" in own for own in errors), errors
    assert all("the same command continues" in own for own in errors), errors


def test_one_of_two_processes_fails(tmp_path, monkeypatch):
    codes, errors = faulty(tmp_path, monkeypatch, "raise:0")
    assert codes == [1, 75], errors
    assert "a fault of one process" in errors[0] and f"process 0 is {LOST}" in errors[1]


@pytest.mark.parametrize("count", [2, 4])
def test_sigterm_to_one_of_two_processes_or_four_stops_all_with_one_checkpoint(tmp_path, count):
    began = start(tmp_path / "run", count, LONG, "--config.checkpoint_every=400 epochs")
    until(began[0], "step 8/")
    began[-1].terminate()
    codes, errors = ended(began)
    assert codes == [130] * count, errors
    assert len({own.strip().splitlines()[-1] for own in errors}) == 1
    assert "state saved; the same command continues" in errors[0]
    saved = [own.name for own in (tmp_path / "run" / "checkpoints").iterdir()]
    assert len(saved) == 1 and f"stopped at step {saved[0]} of" in errors[0]


def test_two_processes_of_four_devices_train_like_one_device(tmp_path):
    codes, errors = ended(start(tmp_path / "two", 2, devices=4))
    assert codes == [0, 0], errors
    alone = (*RUN, "--config.parallel.devices=1")
    assert command(tmp_path / "one", settings=alone) == 0
    for a, b in zip(
        jax.tree.leaves(weights(tmp_path / "one").networks),
        jax.tree.leaves(weights(tmp_path / "two").networks),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_two_processes_stop_early_at_the_same_step(tmp_path):
    """And again after what only process 0 has, the records, is lost."""
    more = ("--config.early_stopping.patience=1", "--config.optimizers.logit.learning_rate=0.5")
    more += ("--config.duration=40 epochs", "--config.eval_every=2 steps")
    codes, errors = ended(start(tmp_path / "run", 2, *more))
    assert codes == [0, 0], errors
    before = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert before["steps"] == before["stopped_early"]["step"] < 240
    for name in ("summary.json", "metrics.jsonl"):
        (tmp_path / "run" / name).unlink()
    codes, errors = ended(start(tmp_path / "run", 2, *more))
    assert codes == [0, 0], errors
    after = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (after["steps"], after["stopped_early"]) == (before["steps"], before["stopped_early"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (b"unhealthy (stopped sending heartbeats):\n1, 3\nThe tasks", "processes 1, 3 are gone"),
        (b"UNAVAILABLE: Task 12 heartbeat timeout. This", "process 12 is gone"),
        (b"absl::Status: DEADLINE_EXCEEDED: Deadline Exceeded", "process 0 is gone"),
    ],
)
def test_words_of_the_service(words, said):
    assert processes._gone(words).startswith(said)


def test_other_ends_of_a_worker(capfd):
    def code(program):
        return processes.supervise(["-c", program])

    assert code("import sys; print('word', file=sys.stderr); sys.exit(3)") == 3
    assert capfd.readouterr().err == "word\n"
    assert code("import os; os.abort()") == 134
    assert "ended by SIGABRT; the same command" in capfd.readouterr().err
    line = "E0101 00:00:00.0 1 coordination_service_agent.cc:1] an error of no importance"
    assert code(f"import sys; print({line!r}, file=sys.stderr)") == 0
    assert line in capfd.readouterr().err


def test_the_patience_of_a_watchdog():
    assert Watchdog(None, alone=False).patience == 600
    assert Watchdog(7.0, alone=True).patience == 7
    watchdog = Watchdog(None, alone=False)
    watchdog._silent = 100.0
    watchdog.alive()
    assert watchdog.patience == 2000
    watchdog._silent = 100.0
    watchdog.rest()
    assert (watchdog._silent, watchdog._begun) == (0, False)


def test_timeouts_are_checked(tmp_path, capsys):
    assert command(tmp_path / "a", "--config.parallel.heartbeat_timeout=1") == 2
    assert "config.parallel.heartbeat_timeout = 1: must be a whole" in capsys.readouterr().err
    assert command(tmp_path / "b", "--config.parallel.step_timeout=0.0") == 2
    assert "config.parallel.step_timeout = 0.0: must be a number" in capsys.readouterr().err
