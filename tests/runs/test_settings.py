"""Settings: mistakes are named in one line, and every field can be set from the command line."""

import subprocess
import sys

import numpy as np
import pytest

from afd_jax.commands.train import main
from afd_jax.errors import SettingError
from afd_jax.runs.assemble import assemble
from afd_jax.runs.durations import to_steps
from afd_jax.runs.overrides import read_config
from tests.running import CONFIG, ROOT, command

MISTAKES = {
    "--config.seeed=1": "config.seeed = '1': unknown field; did you mean 'seed'?",
    "--config.method.temprature=1": "config.method.temprature = '1': unknown field; did you mean",
    "--config.seed=abc": "config.seed = 'abc': invalid literal",
    "--confg.seed=1": "command line = '--confg.seed=1': unknown argument",
    "--config.networks=('resnet9','resnet8')": "config.networks = 'resnet9': did you mean",
    "--config.networks=('resnet8',)": "config.networks = ('resnet8',): this graph needs at least",
    "--config.method.temperature=0": "config.method.temperature = 0.0: must be a number and",
    "--config.method.name=adf": "config.method.name = 'adf': did you mean 'afd'?",
    "--config.graph=ring": "config.graph = 'ring': Choose one of",
    "--config.graph=(('resnet8','resnet8'),)": "config.graph = ('resnet8', 'resnet8'): a network",
    "--config.data.data_dir=/nowhere": "config.data.data_dir = '/nowhere': no such folder",
    "--config.data.heldout=1.5": "config.data.heldout = 1.5: must be a number",
    "--config.duration=5 eons": "config.duration = '5 eons': must be a number and one of steps",
    "--config.batch_size=0": "config.batch_size = 0: must be a whole number",
    "--config.optimizers.feature.name=adm": "config.optimizers.feature.name = 'adm': did you mean",
    "--config.optimizers.logit.learning_rate=-1": "config.optimizers.logit.learning_rate = -1",
    "--config.parallel.mode=pmapp": "config.parallel.mode = 'pmapp': did you mean 'pmap'?",
    "--config.parallel.devices=99": "config.parallel.devices = 99: must be a whole number",
    "--config.graph=(('resnet8','x'),)": "config.graph = ('resnet8', 'x'): there is no node 'x'; n",
    "--config.graph=((0,1),)": "config.graph = (0, 1): each edge must be ('source', 'target')",
    "--config.method.name=no.module:X": "config.method.name = 'no.module:X': could not import it",
    "--config.method.name=math:pi": "config.method.name = 'math:pi': must be a subclass of",
    "--config.method.critic.loss=gan": "config.method.critic.loss = 'gan': Choose one of: bce",
    "--config.method.critic.width=3": "config.method.critic.width = '3': unknown field; did you",
    "--config.average_decay=1.0": "config.average_decay = 1.0: must be a number and at least 0 and",
    "--config.data.rotate=-1.0": "config.data.rotate = -1.0: must be a number and at least 0",
    "--config.seed=4294967296": "config.seed = 4294967296: must be a whole number and at least 0",
    "--config.seeds=0": "config.seeds = 0: must be a whole number and at least 1",
    "--config.seeds=4294967297": "config.seeds = 4294967297: must be a whole number and at least 1",
    "--config.precision=half": "config.precision = 'half': Choose one of: bfloat16, float32",
    "--config.parallel.steps_per_call=0": "config.parallel.steps_per_call = 0: must be a whole",
    "--config.duration=1e99 epochs": "config.duration = '1e99 epochs': must be at most",
    "--config.duration=1e308 epochs": "config.duration = '1e308 epochs': must be at most",
    "--config.duration=1e999 epochs": "config.duration = inf: must be a number",
    "--config.optimizers.logit.learning_rate=nan": "config.optimizers.logit.learning_rate = nan",
    "--config.optimizers.logit.momentum=0": "config.optimizers.logit.nesterov = True: needs a",
    "--config.optimizers.logit.schedule.at=()": "config.optimizers.logit.schedule.at = (): must",
    "--config.optimizers.logit.schedule.at=(0.5,0.5)": "config.optimizers.logit.schedule.at = (0.5",
    "--config.optimizers.logit.schedule.name=cosin": "config.optimizers.logit.schedule.name = '",
    "--config.method.critic.widths=()": "config.method.critic.widths = (): must be a list of val",
    "--config.data.pad=8": "config.data.pad = 8: images of (8, 8) allow at most 7",
    "--config.data.std=(0.0,)": "config.data.std = 0.0: must be a number and greater than 0",
    "--config.seed=None": "config.seed = None: this field must have a value",
    "--config.optimizers.logit.decay=None": "config.optimizers.logit.decay = None: this field must",
    "--config.method.critic.widths=None": "config.method.critic.widths = None: this field must",
    "--config.method=kd": "config.method = 'kd': is a block of settings; set one of them, "
    "--config.method.name=...",
    "--config.optimizers.logit.schedule=cosine": "config.optimizers.logit.schedule = 'cosine': is",
    "--config.data.workers=-3": "config.data.workers = -3: must be a whole number and at least 0",
    "--config.data=None": "config.data = None: this field must have a value",
    "--config.optimizers.logit.clip=0.0": "config.optimizers.logit.clip = 0.0: must be a number",
    "--config.optimizers.logit.clip=x": "config.optimizers.logit.clip = 'x': must be a number",
    "--config.label_smoothing=1.0": "config.label_smoothing = 1.0: must be a number and at least 0",
    "--config.data.mixup=-0.1": "config.data.mixup = -0.1: must be a number and at least 0",
    "--config.data.erase=1.5": "config.data.erase = 1.5: must be a number and at least 0",
    "--config.data.mean=(0.5,0.5)": "config.data.mean = (0.5, 0.5): images have 1 channels",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(mistake, tmp_path, capsys):
    name = "cifar100" if "data_dir" in mistake else "digits"
    config = f"--config={ROOT}/configs/{name}_afd.py:resnet8,resnet8"
    others = ["--config.optimizers.logit.nesterov=True"] if "momentum" in mistake else []
    others += ["--config.optimizers.logit.schedule.name=step"] if "schedule.at" in mistake else []
    assert main([config, f"--workdir={tmp_path}/new", *others, mistake]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {MISTAKES[mistake]}"), error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_a_stream_has_no_augmentation_of_each_networks_own(tmp_path, capsys):
    settings = ("--config.data.stream=True", "--config.own_augmentation=True")
    config = f"--config={ROOT}/configs/digits_afd.py"
    assert main([config, f"--workdir={tmp_path}/new", "--config.seeds=1", *settings]) == 2
    words = "config.own_augmentation = True: streamed images are cut and flipped once"
    assert words in capsys.readouterr().err


def test_augmentation_of_each_networks_own_needs_some(tmp_path, capsys):
    settings = ("--config.own_augmentation=True", "--config.data.pad=0", "--config.data.mixup=0.2")
    config = f"--config={ROOT}/configs/digits_afd.py"
    assert main([config, f"--workdir={tmp_path}/new", *settings]) == 2
    words = "config.own_augmentation = True: all networks would see the same images"
    assert words in capsys.readouterr().err


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


def test_another_choice_brings_its_own_options():
    """A new name starts from that choice's defaults and keeps what all of them have."""
    file = f"{ROOT}/configs/cifar100_afd.py:resnet8,resnet8"
    config = read_config(
        file,
        [
            "--config.optimizers.feature.name=sgd",
            "--config.optimizers.feature.momentum=0.5",
            "--config.optimizers.logit.schedule.name=cosine",
            "--config.optimizers.logit.schedule.warmup=0.1",
            "--config.optimizers.discriminator.b1=0.5",
            "--config.method.name=independent",
        ],
    )
    feature = config.optimizers.feature.to_dict()
    assert feature.pop("schedule") == {
        "name": "step",
        "at": (0.25, 0.5),
        "factor": 0.1,
        "warmup": 0.0,
    }
    assert feature == {
        "name": "sgd",
        "learning_rate": 2e-5,
        "weight_decay": 0.1,
        "decay": "gradient",
        "clip": None,
        "momentum": 0.5,
        "nesterov": False,
    }
    assert config.optimizers.logit.schedule.to_dict() == {"name": "cosine", "warmup": 0.1}
    tf_kd = f"{ROOT}/configs/cifar100_tf_kd.py"
    warmed = read_config(tf_kd, ["--config.optimizers.logit.schedule.name=cosine"])
    own = read_config(tf_kd).optimizers.logit.schedule.warmup
    assert warmed.optimizers.logit.schedule.to_dict() == {"name": "cosine", "warmup": own}
    assert config.optimizers.discriminator.b1 == 0.5
    assert config.method.to_dict() == {"name": "independent", "label_smoothing": 0.0}
    assert read_config(file).method.temperature == 3.0


@pytest.mark.parametrize("field", ["mixup", "cutmix"])
@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("cs_kd", "CSKD pairs images of one class; leave it 0"),
        ("dkd", "DKD sets the one class of the label apart from the others; leave it 0"),
        ("ps_kd", "PSKD remembers what it predicted of each image; leave it 0"),
    ],
)
def test_a_method_that_needs_whole_images_says_so(field, method, words, tmp_path, capsys):
    arguments = [
        f"--config={ROOT}/configs/cifar100_{method}.py:resnet8",
        f"--workdir={tmp_path}/new",
    ]
    assert main([*arguments, f"--config.data.{field}=0.2"]) == 2
    assert capsys.readouterr().err == f"error: config.data.{field} = 0.2: {words}\n"


@pytest.mark.parametrize("other", ["--config.batch_size=33", "--config.data.stream=True"])
def test_pairs_of_a_class_need_even_batches_in_memory(other, tmp_path, capsys):
    arguments = [f"--config={ROOT}/configs/cifar100_mcl.py", f"--workdir={tmp_path}/new", other]
    arguments.append("--config.parallel.devices=1")
    assert main(arguments) == 2
    words = "config.data.class_pairs = True: needs data in memory and an even batch_size"
    assert capsys.readouterr().err == f"error: {words}\n"


def test_the_last_of_a_repeated_setting_counts():
    """ml_collections adds up tuples."""
    twice = ["--config.networks=('resnet8',)", "--config.networks=('resnet14','resnet20')"]
    config = read_config(
        f"{ROOT}/configs/digits_afd.py", [*twice, "--config.seed=1", "--config.seed=2"]
    )
    assert config.networks == ("resnet14", "resnet20") and config.seed == 2


def test_none_takes_the_place_of_a_number():
    """Also in a field that the file gives a number; the last one counts."""
    file = f"{ROOT}/configs/digits_afd.py"
    assert read_config(file).data.labels == 100
    config = read_config(
        file,
        [
            "--config.data.labels=None",
            "--config.data.mean=(0.5,)",
            "--config.data.mean=None",
            "--config.data.std=None",
            "--config.data.std=(0.25,)",
            "--config.optimizers.feature.name=lamb",
            "--config.optimizers.feature.clip=2",
            "--config.optimizers.logit.clip=None",
            "--config.parallel.devices=None",
        ],
    )
    assert config.data.labels is None and config.data.mean is None
    assert config.data.std == (0.25,) and config.parallel.devices is None
    assert config.optimizers.feature.clip == 2 and config.optimizers.logit.clip is None
    assert "decay" not in config.optimizers.feature


def test_a_data_set_with_a_constant_channel_asks_for_its_deviation(tmp_path, capsys):
    images = np.zeros((64, 8, 8, 1), np.uint8)
    labels = np.arange(64) % 4
    arrays = {"images": images, "labels": labels, "test_images": images, "test_labels": labels}
    np.savez(tmp_path / "x.npz", **arrays)
    more = ["--config.data.name=arrays", f"--config.data.data_dir={tmp_path}/x.npz"]
    assert command(tmp_path / "new", *more) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: config.data.std = None: channel 0 is the same in all training")


def test_a_process_number_that_is_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    monkeypatch.delenv("JAX_NUM_PROCESSES", raising=False)
    assert command(tmp_path / "new", "--distributed") == 2
    assert "error: JAX_NUM_PROCESSES = None: must be a whole number" in capsys.readouterr().err


def test_a_config_file_with_a_field_of_its_own_is_refused():
    config = read_config(CONFIG)
    with config.unlocked():
        config.data.hedlout = 0.1
    with pytest.raises(SettingError, match=r"config.data.hedlout = 0.1.*did you mean 'heldout'"):
        assemble(config)


def test_an_incomplete_config_file_is_named(tmp_path, capsys):
    file = tmp_path / "short.py"
    file.write_text(
        "import ml_collections\n"
        "def get_config():\n    return ml_collections.ConfigDict({'optimizers': 3})\n"
    )
    assert main([f"--config={file}", f"--workdir={tmp_path}/w"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: config.") and "start from base_config()" in error


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
    assert "resnet8 -> resnet14" in out and "resnet8 alone (twin)" in out
    row = next(line.split() for line in out.splitlines() if line.startswith("resnet8  "))
    assert row[1] == "77,754"
    # ResNet-8 on one 8x8x1 image by hand: pairs of output and kernel tap that fall into the image
    # (22² for a 3x3 kernel on 8x8, 11² with stride 2, ...), times channels, times two.
    convolutions = 22**2 * (16 + 2 * 16 * 16)
    convolutions += 11**2 * 16 * 32 + 10**2 * 32 * 32 + 16 * 16 * 32
    convolutions += 5**2 * 32 * 64 + 4**2 * 64 * 64 + 4 * 32 * 64
    assert 0.98 < float(row[3]) * 1e6 / (2 * convolutions) < 1.02  # in steps of 0.1
    assert not list(tmp_path.iterdir())


def test_help_is_quick_and_needs_no_jax():
    program = """
import sys
from afd_jax.commands.train import main
try:
    main(["--help"])
except SystemExit:
    pass
assert "jax" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=20
    )
    assert "--dry-run" in done.stdout and "--config=digits_afd" in done.stdout


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
