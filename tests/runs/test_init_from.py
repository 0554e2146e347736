"""Runs that start from weights of other runs or of PyTorch files, or are taught by such files."""

import json
import shutil
import zipfile
import zlib

import jax
import numpy as np
import pytest

from afd_jax.networks import create
from afd_jax.networks.pytorch_names import from_pytorch
from afd_jax.runs.assemble import assemble
from afd_jax.runs.init_from import start_sources
from afd_jax.runs.overrides import read_config
from afd_jax.runs.prerequisites import sources
from afd_jax.runs.trained import load
from tests.networks.test_foreign_weights import state_dict
from tests.running import ROOT, command

CONFIG = f"{ROOT}/tests/digits_config.py:tests.tiny:Tiny"
SETTINGS = (
    "--config.method.name=independent",
    "--config.graph=own",
    "--config.twins=False",
    "--config.data.limit=128",
    "--config.batch_size=32",
    "--config.eval_batch_size=64",
    "--config.duration=1 epochs",
    "--config.log_every=2 steps",
    "--config.parallel.devices=1",
)
RESNET = f"{ROOT}/tests/digits_config.py:resnet8"


def run(workdir, *more):
    return command(workdir, *more, config=CONFIG, settings=SETTINGS)


def start(*more, config=CONFIG):
    return assemble(read_config(config, [*SETTINGS, *more])).initial_state()


def entries(*places, field="init_from"):
    return f"--config.{field}={tuple(map(str, places))!r}"


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def check_start(state, variables):
    same(state.params["network"], dict(variables["params"]))
    same(state.statistics["network"], {"batch_stats": variables["batch_stats"]})


def write_pth(file, tensors):
    """A file as torch.save writes it, by hand."""
    text = b"(d"
    with zipfile.ZipFile(file, "w") as archive:
        for n, (name, tensor) in enumerate(tensors.items()):
            data = np.ascontiguousarray(tensor, "<f4")
            archive.writestr(f"x/data/{n}", data.tobytes())
            sizes, steps = (b"".join(b"I%d\n" % k for k in each) for each in shape_of(data))
            text += b"S'%b'\nctorch._utils\n_rebuild_tensor_v2\n" % name.encode()
            text += b"((S'storage'\nctorch\nFloatStorage\nS'%d'\nS'cpu'\nI%d\ntQ" % (n, data.size)
            text += b"I0\n(" + sizes + b"t(" + steps + b"tI00\nNtRs"
        archive.writestr("x/data.pkl", text + b".")
    return file


def shape_of(data):
    return data.shape, [step // 4 for step in data.strides]


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("before")
    assert run(workdir) == 0
    return workdir


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """ResNet-8 for the digits' one channel."""
    tensors = {k: x for k, x in state_dict("resnet8").items() if x.ndim}
    tensors["conv1.weight"] = tensors["conv1.weight"][:, :1]
    return write_pth(tmp_path_factory.mktemp("weights") / "resnet8.pth", tensors)


def test_a_longer_run_goes_on_from_a_finished_one(before, tmp_path, capsys):
    more = (entries(before), "--config.duration=2 epochs")
    trained = load(before, trust=True)
    state = start(*more, "--config.twins=True")
    check_start(state.networks["Tiny"], trained.variables)
    check_start(state.networks["Tiny alone"], trained.variables)
    assert state.steps_done == 0  # the schedule begins anew, and so do the optimizers
    moments = state.networks["Tiny"].optimizers["logit"]
    assert not any(np.any(x) for x in jax.tree.leaves(moments))
    assert run(tmp_path / "longer", *more) == 0
    noted = json.loads((tmp_path / "longer" / "init_from.json").read_text())["init_from"]
    assert [(n["network"], n["from"], len(n["sha256"])) for n in noted] == [
        ("Tiny", str(before), 64)
    ]
    # The folder may move, but what is in it may not change; nor may it be left out.
    moved = shutil.copytree(before, tmp_path / "moved")
    (tmp_path / "longer" / "summary.json").unlink()
    assert run(tmp_path / "longer", entries(moved), more[1]) == 0
    (tmp_path / "longer" / "summary.json").unlink()
    capsys.readouterr()
    assert run(tmp_path / "longer", entries(tmp_path / "longer"), more[1]) == 2
    assert run(tmp_path / "longer", more[1]) == 2
    assert "config.init_from = []: the run in" in capsys.readouterr().err


def test_other_weights_are_refused_when_a_run_continues(before, tmp_path, capsys):
    other = tmp_path / "other"
    assert run(other, "--config.seed=7") == 0
    assert run(tmp_path / "new", entries(before)) == 0
    assert run(tmp_path / "new", entries(other)) == 2
    error = capsys.readouterr().err
    assert f"config.init_from = ['{other}']: holds other networks than the run" in error


def test_a_pytorch_file_to_start_from(file):
    pair = f"{RESNET},resnet8"
    tensors = {k: np.float32(x) for k, x in state_dict("resnet8").items() if x.ndim}
    tensors["conv1.weight"] = tensors["conv1.weight"][:, :1]
    wanted = from_pytorch(tensors, create("resnet8", 10), (8, 8, 1))
    state = start(entries(file), config=pair)  # one for all
    check_start(state.networks["resnet8"], wanted)
    check_start(state.networks["resnet8_1"], wanted)


def test_a_pytorch_file_as_a_teacher_of_several_seeds(file):
    kd = ("--config.method.name=kd", "--config.seeds=2")
    given = entries(f"resnet8={file}", field="teachers")
    own = assemble(read_config(CONFIG, [*SETTINGS, *kd, given]))
    (teacher,) = own.teachers.values()
    assert (teacher.name, teacher.method, teacher.folder) == ("resnet8", "PyTorch", str(file))
    kernel = teacher.variables["params"]["stem"]["kernel"]
    rng = np.random.default_rng(zlib.crc32(b"conv1.weight"))
    theirs = (rng.normal(size=(16, 3, 3, 3)) * np.sqrt(2 / 27))[:, :1]
    for seed in range(2):
        np.testing.assert_array_equal(kernel[seed], theirs.transpose(2, 3, 1, 0).astype("f4"))


def test_the_home_folder_may_be_written_short(file, monkeypatch):
    """A shell does not replace the ~ of `--config.teachers="('resnet8=~/weights.pth',)"`."""
    monkeypatch.setenv("HOME", str(file.parent))
    short = f"~/{file.name}"
    (source,) = start_sources(read_config(RESNET, [entries(short)]))
    assert source.file == file
    given = entries(f"resnet8={short}", field="teachers")
    (source,) = sources(read_config(CONFIG, [given]), file.parent)
    assert source.file == file


def test_mistakes_are_named(before, file, tmp_path, capsys):
    def error(*more, config=CONFIG):
        capsys.readouterr()
        assert command(tmp_path / "new", *more, config=config, settings=SETTINGS) == 2
        assert not (tmp_path / "new").exists()
        return capsys.readouterr().err

    assert "config.init_from[0] = 'runs/none': no run in this folder" in error(entries("runs/none"))
    assert "there is no such file" in error(entries("none.pth"))
    assert "give one for each of the 1 networks" in error(entries(before, before))
    assert "no PyTorch names are known for Tiny" in error(entries(file))
    other = f"{ROOT}/tests/digits_config.py:tests.tiny:Wider"
    words = error(entries(before), "--config.trust=True", config=other)
    assert "for Wider: weights of another network; the network's batch_stats/" in words
    two = f"{RESNET[: -len('resnet8')]}resnet14"
    words = error(entries(file), config=two)
    assert "for resnet14: lacks layer1.1.bn1." in words
    kd = "--config.method.name=kd"
    teacher = error(kd, entries(file, field="teachers"))
    assert f"or name the network of this file, 'resnet56={file}'" in teacher
    assert "did you mean 'resnet8'" in error(kd, entries(f"resnet8y={file}", field="teachers"))
    branches = ("--config.method.name=one", entries(file))
    assert "a network in branches starts at random" in error(*branches, config=RESNET)


def test_classes_that_differ_are_named(before, tmp_path, capsys):
    moved = shutil.copytree(before, tmp_path / "moved")
    data = json.loads((moved / "data.json").read_text()) | {"classes": 100}
    (moved / "data.json").write_text(json.dumps(data))
    assert run(tmp_path / "new", entries(moved)) == 2
    words = "for Tiny: that run learned 100 classes, the data here have 10"
    assert words in capsys.readouterr().err
