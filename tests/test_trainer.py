"""Whole runs, through the command line's own function, with tiny networks on the digits."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from afd_jax import report
from afd_jax.__main__ import main
from afd_jax.assemble import assemble
from afd_jax.checkpoint import Checkpoints, load_network
from afd_jax.cohort import init_state
from afd_jax.config import read_config, to_steps
from afd_jax.errors import SettingError
from afd_jax.trainer import train

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = f"{ROOT}/configs/digits_afd.py:tests.tiny:Tiny,tests.tiny:Wider"
SETTINGS = (
    "--config.data.limit=192",
    "--config.batch_size=32",
    "--config.eval_batch_size=64",
    "--config.duration=4 epochs",
    "--config.log_every=4 steps",
    "--config.parallel.devices=1",
    "--config.method.widths=(4,)",
)


def command(workdir, *more):
    return main([f"--config={CONFIG}", f"--workdir={workdir}", *SETTINGS, *more])


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def final_state(workdir, *more):
    run = assemble(read_config(CONFIG, [*SETTINGS, *more]))
    checkpoints = Checkpoints(workdir / "checkpoints")
    state, _ = checkpoints.restore(init_state(run.cohort, jax.random.key(1)))
    checkpoints.close()
    return state


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    assert command(workdir) == 0
    return workdir


def test_a_run_leaves_what_it_promises(finished):
    assert {p.name for p in finished.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "checkpoints",
        "summary.json",
        "curves.png",
    }
    summary = json.loads((finished / "summary.json").read_text())
    assert [n["name"] for n in summary["networks"]] == ["tests.tiny:Tiny", "tests.tiny:Wider"]
    assert [n["parameters"] for n in summary["networks"]] == [4 * 9 + 4 + 8 + 50, 54 + 6 + 12 + 70]
    assert [n["name"] for n in summary["alone"]] == [
        "tests.tiny:Tiny alone",
        "tests.tiny:Wider alone",
    ]
    assert (summary["steps"], summary["seed"], summary["epochs"]) == (24, 0, 4)
    for key in ("compile_seconds", "train_seconds", "images_per_second", "ensemble_test_accuracy"):
        assert summary[key] > 0
    assert summary["jax_version"] == jax.__version__ and "cpu" in summary["device"]

    records = lines(finished)
    test = [r for r in records if r["kind"] == "test"]
    heldout = [r for r in records if r["kind"] == "heldout"]
    assert [r["epoch"] for r in test] == [1, 2, 3, 4]
    for k, network in enumerate(summary["networks"]):
        assert network["test_accuracy"] == test[-1]["accuracy"][k]  # the last epoch, not the best
        best = max(r["accuracy"][k] for r in heldout)
        assert best in [
            r["accuracy"][k] for r in heldout if r["epoch"] == network["best_heldout_epoch"]
        ]
    # Six steps of 32 in an epoch and a line every four: lines end where epochs end.
    assert [r["step"] for r in records if r["kind"] == "train"] == [4, 6, 8, 12, 16, 18, 20, 24]
    assert "0/loss/generator" in records[0] and "2/loss/cross_entropy" in records[0]
    assert "2/loss/distillation" not in records[0]
    assert (finished / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_training_lowers_the_loss(finished):
    records = lines(finished)
    losses = [r["0/loss/cross_entropy"] for r in records if r["kind"] == "train"]
    assert losses[-1] < losses[0]


def test_the_same_command_says_that_it_is_finished(finished, capsys):
    before = (finished / "metrics.jsonl").read_bytes()
    assert command(finished) == 0
    assert "is finished" in capsys.readouterr().out
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_ctrl_c_and_the_same_command_end_bit_equal(finished, tmp_path, monkeypatch, capsys):
    trained = report.Progress.trained

    def interrupt(self, record):
        trained(self, record)
        if record["step"] == 8:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(report.Progress, "trained", interrupt)
    assert command(tmp_path) == 130
    assert "step 9 of 24, state saved; the same command continues" in capsys.readouterr().err
    assert not (tmp_path / "summary.json").exists()
    monkeypatch.setattr(report.Progress, "trained", trained)
    assert command(tmp_path) == 0
    assert "continuing" in capsys.readouterr().out
    assert_bit_equal(finished, tmp_path)
    records = lines(tmp_path)
    assert [r["step"] for r in records if r["kind"] == "test"] == [6, 12, 18, 24]


def test_a_crash_goes_back_to_the_last_checkpoint_and_ends_bit_equal(
    finished, tmp_path, monkeypatch
):
    trained = report.Progress.trained

    def crash(self, record):
        if record["step"] == 20:
            raise RuntimeError("power cut")

    monkeypatch.setattr(report.Progress, "trained", crash)
    with pytest.raises(RuntimeError, match="power cut"):
        command(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tra')  # torn in the middle of a line
    monkeypatch.setattr(report.Progress, "trained", trained)
    assert command(tmp_path) == 0
    assert_bit_equal(finished, tmp_path)
    steps = [r["step"] for r in lines(tmp_path)]
    assert steps == sorted(steps) and steps.count(20) == 1


def assert_bit_equal(a, b):
    ours, theirs = final_state(a), final_state(b)
    assert int(ours.step) == int(theirs.step) == 24
    jax.tree.map(np.testing.assert_array_equal, ours.peers, theirs.peers)
    one, other = (json.loads((w / "summary.json").read_text()) for w in (a, b))
    assert one["networks"] == other["networks"] and one["alone"] == other["alone"]


def test_eight_devices_train_the_same_networks(finished, tmp_path):
    """pmap by default; its checkpoint loads on one device."""
    assert command(tmp_path, "--config.parallel.devices=8") == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["device"].startswith("8 x cpu") and summary["device"].endswith("pmap")
    for a, b in zip(
        jax.tree.leaves(final_state(finished).peers),
        jax.tree.leaves(final_state(tmp_path).peers),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=2e-3)


def test_a_trained_network_can_be_used_elsewhere(finished):
    network, variables = load_network(finished, 1)
    images = np.zeros((3, 8, 8, 1), np.float32)
    outputs = network.apply(variables, images, train=False)
    assert outputs.logits.shape == (3, 10)
    expected = final_state(finished).peers[1].params["network"]
    jax.tree.map(np.testing.assert_array_equal, variables["params"], expected)
    with pytest.raises(SettingError, match="node = 7"):
        load_network(finished, 7)


def test_another_setting_in_the_same_folder_is_refused(finished, capsys):
    assert command(finished, "--config.seed=1") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: config.seed = 1: the run in ") and "has 0; use that" in error
    assert len(error.splitlines()) == 1


def test_what_does_not_change_the_numbers_may_change(finished, capsys):
    assert command(finished, "--config.log_every=2 steps") == 0
    assert "is finished" in capsys.readouterr().out


def test_without_held_out_examples_there_is_no_best_epoch(tmp_path):
    config = read_config(
        CONFIG, [*SETTINGS, "--config.data.heldout=0.0", "--config.duration=2 steps"]
    )
    summary = train(config, tmp_path, show_progress=False)
    assert summary["networks"][0]["best_heldout_epoch"] is None


MISTAKES = {
    "--config.seeed=1": "config.seeed = '1': unknown field; did you mean 'seed'?",
    "--config.method.temprature=1": "config.method.temprature = '1': unknown field; did you mean",
    "--config.seed=abc": "config.seed = 'abc': invalid literal",
    "--confg.seed=1": "command line = '--confg.seed=1': unknown argument",
    "--config.networks=('resnet9','resnet8')": "config.networks = 'resnet9': did you mean",
    "--config.networks=('resnet8',)": "config.networks = ('resnet8',): networks that teach each",
    "--config.method.temperature=0": "config.method.temperature = 0.0: must be a number and",
    "--config.method.name=adf": "config.method.name = 'adf': did you mean 'afd'?",
    "--config.graph=ring": "config.graph = 'ring': Choose one of",
    "--config.graph=((0,0),)": "config.graph = (0, 0): a network cannot be its own source",
    "--config.data.data_dir=/nowhere": "config.data.data_dir = '/nowhere': no such folder",
    "--config.data.heldout=1.5": "config.data.heldout = 1.5: must be a number",
    "--config.duration=5 eons": "config.duration = '5 eons': must be a number and one of steps",
    "--config.batch_size=0": "config.batch_size = 0: must be a whole number",
    "--config.optimizers.feature.name=adm": "config.optimizers.feature.name = 'adm': did you mean",
    "--config.optimizers.logit.learning_rate=-1": "config.optimizers.logit.learning_rate = -1",
    "--config.parallel.mode=pmapp": "config.parallel.mode = 'pmapp': did you mean 'pmap'?",
    "--config.parallel.devices=99": "config.parallel.devices = 99: must be 1 to 8",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(mistake, tmp_path, capsys):
    name = "cifar100" if "data_dir" in mistake else "digits"
    config = f"--config={ROOT}/configs/{name}_afd.py:resnet8,resnet8"
    assert main([config, f"--workdir={tmp_path}/new", mistake]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {MISTAKES[mistake]}"), error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_images_that_a_network_cannot_take(tmp_path, capsys):
    images = np.random.default_rng(0).integers(256, size=(64, 3, 3, 1), dtype=np.uint8)
    labels = np.arange(64) % 4
    np.savez(
        tmp_path / "x.npz", images=images, labels=labels, test_images=images, test_labels=labels
    )
    more = [
        "--config.data.name=arrays",
        f"--config.data.data_dir={tmp_path}/x.npz",
        "--config.networks=('resnet8','resnet8')",
    ]
    assert command(tmp_path / "new", *more) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: config.networks[0] (resnet8): image size = (3, 3): ")


def test_a_config_file_with_a_field_of_its_own_is_refused():
    config = read_config(CONFIG)
    with config.unlocked():
        config.data.hedlout = 0.1
    with pytest.raises(SettingError, match=r"config.data.hedlout = 0.1.*did you mean 'heldout'"):
        assemble(config)


def test_missing_and_broken_config_files(tmp_path, capsys):
    assert main([f"--config={tmp_path}/none.py", f"--workdir={tmp_path}/w"]) == 2
    (tmp_path / "broken.py").write_text("def get_config():\n    return 1 / 0\n")
    assert main([f"--config={tmp_path}/broken.py", f"--workdir={tmp_path}/w"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "no such file" in lines[0] and "get_config failed: division by zero" in lines[1]


def test_dry_run_prints_graph_and_costs_and_trains_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([f"--config={ROOT}/configs/digits_afd.py", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "0 resnet8 -> 1 resnet14" in out and "2 resnet8 alone (alone)" in out
    row = next(line.split() for line in out.splitlines() if line.startswith("0 resnet8  "))
    assert row[2] == "77,754"
    # ResNet-8 on one 8x8x1 image by hand: pairs of output and kernel tap that fall into the image
    # (22² for a 3x3 kernel on 8x8, 11² with stride 2, ...), times channels, times two.
    convolutions = 22**2 * (16 + 2 * 16 * 16)
    convolutions += 11**2 * 16 * 32 + 10**2 * 32 * 32 + 16 * 16 * 32
    convolutions += 5**2 * 32 * 64 + 4**2 * 64 * 64 + 4 * 32 * 64
    assert 0.95 < float(row[4]) * 1e6 / (2 * convolutions) < 1.1
    assert not list(tmp_path.iterdir())


def test_help_is_quick_and_needs_no_jax():
    program = """
import sys
from afd_jax.__main__ import main
try:
    main(["--help"])
except SystemExit:
    pass
assert "jax" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20
    )
    assert "--dry-run" in done.stdout and "configs/digits_afd.py" in done.stdout


def test_cifar100_config_has_the_papers_schedule():
    config = read_config(f"{ROOT}/configs/cifar100_afd.py:resnet32,resnet32,resnet20")
    assert config.networks == ("resnet32", "resnet32", "resnet20")
    assert (config.duration, config.batch_size) == ("300 epochs", 128)
    assert config.optimizers.logit.schedule["at"] == (150 / 300, 225 / 300)
    assert config.optimizers.feature.schedule["at"] == (75 / 300, 150 / 300)
    small = read_config(f"{ROOT}/configs/cifar100_afd.py:resnet8,resnet8,smoke")
    assert small.networks == ("resnet8", "resnet8") and small.duration == "24 steps"


def test_durations():
    convert = lambda text: to_steps("duration", text, batch_size=10, examples=105)  # noqa: E731
    assert [
        convert(t) for t in ("7 steps", "2 epochs", "1 epoch", "50 examples", "0.5 epochs")
    ] == [
        7,
        20,
        10,
        5,
        5,
    ]
    for wrong in ("2", "epochs", "0 epochs", "-1 steps", "1e epochs", 5):
        with pytest.raises(SettingError, match="duration"):
            convert(wrong)


def test_two_processes_train_like_one(tmp_path):
    """Multi-host: two processes with four devices each, over jax.distributed on this machine."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    workers = []
    for index in range(2):
        environment = os.environ | {
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(index),
            "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        }
        arguments = [f"--config={CONFIG}", f"--workdir={tmp_path / 'two'}", *SETTINGS]
        arguments += ["--config.parallel.devices=8", "--distributed"]
        workers.append(
            subprocess.Popen(
                [sys.executable, "-m", "afd_jax", *arguments],
                env=environment,
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [worker.communicate(timeout=240)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert "test accuracy" in outputs[0] and "test accuracy" not in outputs[1]
    assert command(tmp_path / "one", "--config.parallel.devices=8") == 0
    for a, b in zip(
        jax.tree.leaves(final_state(tmp_path / "one").peers),
        jax.tree.leaves(final_state(tmp_path / "two").peers),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=2e-3)
