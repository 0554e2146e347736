"""What `--dry-run` promises, against runs that have happened and the compiler's own count."""

import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

from afd_jax.commands.train import main
from afd_jax.data import load, outline
from afd_jax.engine.init import state_shapes
from afd_jax.engine.step import train_step
from afd_jax.errors import SettingError
from afd_jax.reports import cost
from afd_jax.runs import assemble as assembling
from afd_jax.runs import dry_run
from afd_jax.runs.assemble import assemble
from afd_jax.runs.overrides import read_config
from tests.running import CONFIG, ROOT, SETTINGS

ALONE = f"{ROOT}/tests/digits_config.py:tests.tiny:Tiny"
SMALL = ("--config.twins=False", "--config.parallel.devices=1", "--config.graph=own")
KD = (*SMALL, "--config.method.name=kd", "--config.duration=10 steps")


def costed(config, settings):
    run = assemble(read_config(config, settings), outlined=True)
    return dry_run._Costed(run, dry_run._costs(run))


def rows(out):
    """Lines of the table of runs."""
    return out.split("runs, in order")[1].split("\n\n")[0].splitlines()[1:]


def near(value, real, share):
    assert abs(value / real - 1) < share, (value, real)


@pytest.fixture
def without_data(monkeypatch):
    def fail(*_, **__):
        raise AssertionError("data were loaded")

    monkeypatch.setattr(assembling, "load", fail)
    monkeypatch.setattr(assembling, "load_streamed", fail)


def test_metrics_are_as_large_as_those_of_a_run(finished):
    near(costed(CONFIG, SETTINGS).metrics, (finished / "metrics.jsonl").stat().st_size, 0.3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Of a network with enough parameters for them to be most of a checkpoint."""
    workdir = tmp_path_factory.mktemp("trained")
    words = [*KD, "--config.method.name=independent", "--config.data.limit=64"]
    words += ["--config.duration=4 steps", "--config.checkpoint_every=2 steps"]
    config = f"{ROOT}/tests/digits_config.py:resnet8"
    assert main([f"--config={config}", f"--workdir={workdir}", *words]) == 0
    return workdir, costed(config, words)


def test_checkpoints_are_as_large_as_those_of_a_run(trained):
    workdir, promised = trained
    files = [path for path in (workdir / "checkpoints").rglob("*") if path.is_file()]
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"2", "4"}
    near(promised.checkpoints, sum(path.stat().st_size for path in files), 0.2)


@pytest.mark.parametrize("method", ["afd", "kd"])
def test_the_compiler_counts_as_many_operations_in_a_step(method):
    """It counts what is done element by element, too."""
    words = [*SMALL, f"--config.method.name={method}", "--config.batch_size=16"]
    words += ["--config.teachers=('resnet14',)"] * (method == "kd")
    names = "resnet8" if method == "kd" else "resnet8,resnet14"
    run = assemble(read_config(f"{ROOT}/tests/digits_config.py:{names}", words), outlined=True)
    batch = {
        "image": jax.ShapeDtypeStruct((16, 8, 8, 1), np.float32),
        "label": jax.ShapeDtypeStruct((16,), np.int32),
        "index": jax.ShapeDtypeStruct((16,), np.int32),
    }
    step = jax.jit(lambda s, b: train_step(run.plan, s, b, detailed=False))
    theirs = step.lower(state_shapes(run.plan), batch).cost_analysis()["flops"]
    own = cost.costs(run.plan, 16).step_flops
    assert 0.9 < own / theirs < 1.01, (own, theirs)


def test_heads_are_not_taken_off_what_a_network_keeps():
    """What AFD's discriminator holds is no part of the network's backward pass."""
    found = {}
    for method in ("dml", "afd"):
        words = [*SMALL, f"--config.method.name={method}"]
        config = read_config(f"{ROOT}/tests/digits_config.py:resnet8,resnet8", words)
        run = assemble(config, outlined=True)
        found[method] = [
            cost.activation_bytes(run.plan, network, state_shapes(run.plan).networks[name], size)
            for name, network in run.plan.networks.items()
            for size in (1, 9)
        ]
    assert found["dml"] == found["afd"]
    one, nine = found["dml"][:2]
    images = (nine - one) / 8
    assert 8 * 8 * 16 * 4 * 5 < images < nine / 9  # at least five maps of the first stage


def test_all_runs_are_listed_in_order_without_data(without_data, capsys, tmp_path):
    words = [*KD, "--config.teachers=('tests.tiny:Wider','tests.tiny:Tiny')"]
    assert main([f"--config={ALONE}", "--dry-run", f"--workdir={tmp_path}", *words]) == 0
    out = capsys.readouterr().out
    found = rows(out)
    assert "Wider" in found[0] and "Tiny" in found[1]
    assert [line.split()[0] for line in found[2:]] == ["the", "together"]
    folders = re.findall(r" (teacher_\d|\.) ", "\n".join(found))
    assert folders == ["teacher_0", "teacher_1", "."]
    assert all("to do" in line for line in found[:3])
    assert max(map(len, out.splitlines())) <= 100
    assert not list(tmp_path.iterdir())


def test_generations_are_listed_with_the_teachers_of_the_first(without_data, capsys, tmp_path):
    words = [*KD, "--config.teachers=('tests.tiny:Tiny',)", "--config.generations=3"]
    first = tmp_path / "generation_1" / "teacher_0"
    (first / "checkpoints" / "7").mkdir(parents=True)
    assert main([f"--config={ALONE}", "--dry-run", f"--workdir={tmp_path}", *words]) == 0
    found = rows(capsys.readouterr().out)
    assert len(found) == 5
    assert "teacher_0 " in found[0] and found[0].endswith("step 7")
    assert found[1].startswith("generation 1 of 3") and found[2].startswith("generation 2 of 3")
    assert found[3].startswith("the run itself") and found[3].endswith("to do")
    assert "40" in found[4]  # steps together


def test_a_finished_run_is_seen(finished, capsys):
    assert main([f"--config={CONFIG}", f"--workdir={finished}", "--dry-run", *SETTINGS]) == 0
    (row,) = rows(capsys.readouterr().out)
    assert row.endswith("finished")


def test_a_step_is_timed_with_a_teacher_that_is_not_trained(without_data, capsys, tmp_path):
    words = [*KD, "--config.teachers=('tests.tiny:Tiny',)", "--config.seeds=2"]
    command = [f"--config={ALONE}", "--dry-run=timed", f"--workdir={tmp_path}", *words]
    assert main(command) == 0
    out = capsys.readouterr().out
    rates = re.findall(r"compiled in [\d.]+ s, [\d.]+ .iB on a device; ([\d,]+) images/s", out)
    assert len(rates) == 2 and all(int(rate.replace(",", "")) > 0 for rate in rates)
    assert re.search(r"all that is left: [\d.]+ (s|min), without evaluations", out)
    assert not list(tmp_path.iterdir())


SIZES = {"heldout": 0.2, "labels": 100, "limit": 90}


@pytest.mark.parametrize("more", [{}, {"heldout": 0.2}, SIZES, {"image_size": 4}])
def test_an_outline_has_the_sizes_of_the_data(more):
    told, real = outline("digits", **more), load("digits", **more)
    for part in ("train", "heldout", "test"):
        own, other = getattr(told, part), getattr(real, part)
        assert (len(own), own.image_shape) == (len(other), other.image_shape)
    assert told.classes == real.classes


def test_an_outline_of_files_has_the_sizes_of_the_data(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for n in range(10):
            Image.new("RGB", (12, 8), (n, 0, 0)).save(tmp_path / label / f"{n}.png")
    told = outline("folder", data_dir=str(tmp_path))
    real = load("folder", data_dir=str(tmp_path))
    assert (len(told.train), len(told.test)) == (len(real.train), len(real.test)) == (16, 4)
    assert told.image_shape == real.image_shape == (8, 12, 3)
    assert told.class_names == ("cat", "dog")


def test_an_outline_of_files_has_three_channels_if_any_has_colours(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for n in range(5):
            Image.new("L", (8, 8), n).save(tmp_path / label / f"{n}.png")
    assert outline("folder", data_dir=str(tmp_path)).image_shape == (8, 8, 1)
    Image.new("RGB", (8, 8)).save(tmp_path / "dog" / "3.png")
    told, real = (each("folder", data_dir=str(tmp_path)) for each in (outline, load))
    assert told.image_shape == real.image_shape == (8, 8, 3)


def test_well_known_sets_need_no_files():
    told = outline("cifar100", heldout=0.1)
    assert (len(told.train), len(told.heldout), len(told.test)) == (45_000, 5_000, 10_000)
    assert (told.image_shape, told.classes) == ((32, 32, 3), 100)
    told = outline("tfds:imagenet2012", stream=True, heldout=0.1)
    assert (len(told.train), len(told.heldout)) == (1_153_050, 128_117)
    assert (told.image_shape, told.classes) == ((224, 224, 3), 1000)


@pytest.mark.parametrize(
    ("name", "more", "field"),
    [
        ("digit", {}, "data.name"),
        ("folder", {}, "data.data_dir"),
        ("tfds:mnist", {"data_dir": "."}, "data.data_dir"),
        ("tfds:imagenet2012", {}, "data.stream"),
        ("cifar10", {"image_size": 7}, "data.image_size"),
        ("digits", {"stream": True}, "data.stream"),
    ],
)
def test_what_cannot_be_found_out_names_the_setting_that_tells_it(name, more, field):
    with pytest.raises(SettingError) as error:
        outline(name, **more)
    assert error.value.field == field


def test_a_finished_teacher_does_not_need_the_datas_own_statistics(finished, capsys):
    """They are not known without data, so they are not compared."""
    assert json.loads((finished / "config.json").read_text())["data"]["mean"] is None
    words = [*KD, f"--config.teachers=('{finished}@Tiny',)", "--config.trust=True"]
    assert main([f"--config={ALONE}", "--dry-run", *words]) == 0
    assert "teacher" in capsys.readouterr().out
