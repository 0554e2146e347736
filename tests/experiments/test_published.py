"""The studies of published tables: they assemble, have the figures, and can be tried out."""

import dataclasses
import functools
import os
import re
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afd_jax.engine.init import state_shapes
from afd_jax.engine.step import train_step
from afd_jax.networks import NAMES
from afd_jax.reports.flops import count_flops
from afd_jax.runs.assemble import assemble
from experiments.study import command as command_line
from experiments.study import tryout
from experiments.study.plan import Block, Job, Setting, Study, load
from tests.experiments.small_study import recipe, study
from tests.running import ROOT

STUDIES = ("paper_afd", "repdistiller", "online")


def settings_of(name):
    """(block, setting, its config with the teachers by name) of a study."""
    for block in load(name).blocks:
        for setting in block.settings:
            config = Job(block, setting, tuple(block.seeds[:1])).config(ROOT / "nowhere")
            config.teachers = tuple(teacher.partition("@")[2] for teacher in setting.teachers)
            yield block, setting, config


def shallow(network):
    """Of the same family, which takes less time to trace."""
    if network.startswith("okddip") and network != "okddip_vgg16":
        return "resnet8"
    network = re.sub(r"^resnet\d+", "resnet8", network)
    network = network.replace("wrn-40", "wrn-16").replace("vgg13", "vgg8")
    return network.replace("cifar_resnet50", "cifar_resnet18")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A file of CIFAR-100's shapes."""
    rng, labels = np.random.default_rng(0), np.tile(np.arange(100), 2).astype(np.int32)
    pixels = rng.integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    file = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(file, images=pixels, labels=labels, test_images=pixels, test_labels=labels)
    return str(file)


@pytest.mark.parametrize("name", STUDIES)
def test_every_setting_can_be_trained(name, images):
    seen = set()
    for block, setting, config in settings_of(name):
        assert {*config.networks, *config.teachers} <= {*NAMES}
        config.networks = tuple(map(shallow, config.networks))
        config.teachers = tuple(map(shallow, config.teachers))
        key = (config.networks, config.teachers, config.graph, str(config.method))
        if key in seen or (setting.teachers and setting.name == "KD"):  # looks at no map
            continue
        seen.add(key)
        config.data.name, config.data.data_dir, config.parallel.devices = "arrays", images, 1
        try:
            plan = assemble(config).plan
        except Exception as error:
            raise AssertionError(f"{block.name}: {setting.name}") from error
        assert len(plan.graph.teachers) == len(setting.teachers)
    assert len(seen) >= 12


@pytest.mark.parametrize("name", STUDIES)
def test_the_settings_of_a_block_share_one_recipe(name):
    recipes = {}
    for block, _, config in settings_of(name):
        optimizer = config.optimizers.logit.to_dict()
        light = name == "repdistiller" and config.networks[0].startswith(("mobile", "shuffle"))
        if name == "repdistiller":
            assert optimizer.pop("learning_rate") == (0.01 if light else 0.05)
        own = (config.data.to_dict(), optimizer, config.batch_size, config.duration)
        assert own == recipes.setdefault(block.name, own)
    (first, *others) = recipes.values()
    assert all(other == first for other in others)
    data, optimizer, size, duration = first
    assert data["heldout"] == 0 and data["name"] == "cifar100"
    expected = {
        "paper_afd": (128, "300 epochs", 1e-4, False, (0.5, 0.75)),
        "repdistiller": (64, "240 epochs", 5e-4, False, (150 / 240, 180 / 240, 210 / 240)),
        "online": (128, "300 epochs", 5e-4, True, (0.5, 0.75)),
    }
    schedule = tuple(optimizer["schedule"]["at"])
    found = (size, duration, optimizer["weight_decay"], optimizer["nesterov"], schedule)
    assert found == expected[name]


@pytest.mark.parametrize("name", STUDIES)
def test_figures_are_of_networks_that_are_trained(name):
    for block, setting, config in settings_of(name):
        for network in setting.published:
            plain = network.removesuffix(" leader").removeprefix("average of ")
            assert plain in config.networks, f"{block.name}: {setting.name}"
            averages = setting.config.startswith("cifar100_pcl:")
            assert network.startswith("average of ") == averages


# In the order of the public tables; papers and READMEs, not computed here.
FIGURES = {
    ("paper_afd", "two ResNet-32"): {"independent": 69.38, "logits only": 73.38, "AFD": 74.03},
    ("online", "resnet32"): {
        "DML": 73.68,
        "ONE": 73.79,
        "OKDDip": 73.25,
        "KDCL": 73.76,
        "PCL": 74.14,
    },
    ("online", "okddip_wrn-20-8"): {
        "DML": 79.77,
        "ONE": 79.10,
        "OKDDip": 78.83,
        "KDCL": 79.37,
        "PCL": 80.51,
    },
    ("repdistiller", "wrn-40-2 to wrn-16-2"): {
        "student alone": 73.26,
        "KD": 74.92,
        "FitNet": 73.58,
        "AT": 74.08,
        "SP": 73.83,
        "VID": 74.11,
        "RKD": 73.35,
        "PKT": 74.54,
        "FT": 73.25,
        "CRD": 75.48,
        "DKD": 76.24,
    },
    ("repdistiller", "cifar_resnet50 to mobilenet_v2"): {
        "student alone": 64.60,
        "KD": 67.35,
        "FitNet": 63.16,
        "AT": 58.58,
        "SP": 68.08,
        "VID": 67.57,
        "RKD": 64.43,
        "PKT": 66.52,
        "FT": 60.99,
        "CRD": 69.11,
        "DKD": 70.35,
    },
    ("repdistiller", "teachers"): {
        "wrn-40-2": 75.61,
        "resnet56": 72.34,
        "resnet110": 74.31,
        "resnet32x4": 79.42,
        "vgg13": 74.64,
        "cifar_resnet50": 79.34,
    },
}


@pytest.mark.parametrize("name, block", FIGURES)
def test_figures_are_those_of_the_tables(name, block):
    found = {s.name: s.published for s in load(name).block(block).settings if s.published}
    assert {setting: [*own.values()] for setting, own in found.items()} == {
        setting: [figure] for setting, figure in FIGURES[name, block].items()
    }


@pytest.mark.parametrize(
    "block, hint, attention",
    [
        ("vgg13 to vgg8", (3, 3), ((2, 3, 4, 5), (2, 3, 4, 5))),
        ("vgg13 to mobilenet_v2", (2, 3), ((1, 2, 3, 4), (2, 3, 4, 5))),
        ("cifar_resnet50 to vgg8", (3, 2), ((2, 3, 4, 5), (1, 2, 3, 4))),
        ("resnet56 to resnet20", (2, 0), ((), ())),
    ],
)
def test_a_vggs_first_stage_is_left_out(block, hint, attention):
    methods = {
        setting.name: config.method
        for own, setting, config in settings_of("repdistiller")
        if own.name == block
    }
    assert (methods["FitNet"].stage, methods["FitNet"].teacher_stage) == hint
    for name in ("AT", "VID"):
        fields = (methods[name].get(field, ()) for field in ("stages", "teacher_stages"))
        assert tuple(map(tuple, fields)) == attention


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """The command line, with a study of tiny networks for any name."""
    monkeypatch.setattr(command_line, "load", lambda name: study())
    own = [f"--runs={tmp_path}/runs", f"--results={tmp_path}/results"]
    return lambda *arguments: command_line.main(["tiny", *arguments, *own])


def test_trying_out_trains_a_setting_and_its_teacher_and_keeps_nothing(asked, tmp_path, capsys):
    assert asked("--smoke", "--only=KD") == 0
    assert re.match(r"few steps: KD\b.*: \d+\.\d %", capsys.readouterr().out)
    assert not [*tmp_path.iterdir()]


def test_trying_out_fails_where_a_setting_cannot_work(asked, monkeypatch, capsys):
    broken = study(**{"method.temperature": -1.0})
    monkeypatch.setattr(command_line, "load", lambda name: broken)
    assert asked("--smoke", "--only=DML") != 0
    captured = capsys.readouterr()
    assert "temperature" in captured.out + captured.err


PAIR = "resnet8,resnet14"


def costly(config, seed):
    """As in the other study, but 1,000 steps of 100 images."""
    recipe(config, seed)
    config.data.limit, config.batch_size, config.duration = 1000, 100, "1000 steps"


COSTS = Block(
    "costs",
    (
        Setting("independent", f"cifar100_independent:{PAIR}"),
        Setting("AFD", f"cifar100_afd:{PAIR}"),
        Setting("KD", "cifar100_kd:resnet8", teachers=("independent@resnet14",)),
    ),
    costly,
    seeds=(0, 1),
)


def traced(setting):
    """Operations of a setting's steps, as they are traced."""
    config = Job(COSTS, setting, (0,)).config(ROOT / "nowhere")
    config.teachers = tuple(teacher.partition("@")[2] for teacher in setting.teachers)
    plan, array = assemble(config).plan, jax.ShapeDtypeStruct
    batch = {"image": array((100, 8, 8, 1), jnp.uint8)}
    batch |= {field: array((100,), jnp.int32) for field in ("label", "index")}
    step = functools.partial(train_step, plan, detailed=False)
    return 1000 * count_flops(step, state_shapes(plan), batch)


@pytest.mark.parametrize("name", ["independent", "AFD", "KD"])
def test_an_estimate_is_the_operations_of_the_steps(name):
    setting = COSTS.setting(name)
    # Teachers come from a setting that is not counted here.
    own = dataclasses.replace(COSTS, name="one", settings=(setting,), teachers=COSTS)
    rate = 1e-6  # so slow that hours are no small numbers
    row = tryout.estimate(Study("?", (own,)), rate).splitlines()[2]
    _, block, runs, _, hours, _ = (cell.strip() for cell in row.split("|"))
    assert (block, runs) == ("one", "2")
    expected = 2 * traced(setting) / (rate * 1e12) / 3600
    assert float(hours.replace(",", "")) == pytest.approx(expected, rel=0.1)


def test_the_command_line_estimates(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command_line, "load", lambda name: Study("?", (COSTS,)))
    assert command_line.main(["any", "--estimate=1e-6", f"--results={tmp_path}"]) == 0
    assert re.search(r"^\| costs \| 6 \| ", capsys.readouterr().out, re.MULTILINE)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("status, queues", [(0, False), (1, False), (130, True), (143, True)])
def test_a_share_of_an_array_queues_again_when_it_was_stopped(status, queues, tmp_path):
    for name, text in {"srun": f'echo "$@"; exit {status}', "scontrol": 'echo "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    numbers = {"JOB_ID": "7", "TASK_ID": "5", "TASK_MIN": "2", "TASK_COUNT": "8"}
    environment = {f"SLURM_ARRAY_{name}": value for name, value in numbers.items()}
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = ROOT / "experiments" / "launch" / "study.sbatch"
    command = ["bash", str(script), "online", "DIR", "--seeds-at-once=3"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    first, *more = done.stdout.splitlines()
    assert first.startswith("python -m experiments.study online ") and first.endswith("at-once=3")
    assert "--part 4/8 " in first and "--data-dir DIR" in first
    assert more == (["requeue 7_5"] if queues else [])
    assert done.returncode == (0 if queues else status)
