"""Exported networks: what is written, checked and refused."""

import errno
import functools
import json
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from afd_jax import networks
from afd_jax.commands import export as command
from afd_jax.data.recipe import Recipe
from afd_jax.errors import SettingError
from afd_jax.exports import check
from afd_jax.exports import write as write_module
from afd_jax.exports.folder import export
from afd_jax.exports.write import WrongOutputsError, write
from afd_jax.networks import Outputs
from afd_jax.networks.functional import functional
from afd_jax.runs.trained import TrainedNetwork, load
from tests.networks.modules import InNNX
from tests.running import damage
from tests.runs.test_from_outside import OnDigits

pytest.importorskip("safetensors", reason="needs the extra export")
pytest.importorskip("flatbuffers", reason="needs the extra export")


def main(arguments):
    """The command, which imports networks of the tests' own."""
    return command.main([*arguments, "--trust"])


@pytest.fixture(scope="module")
def written(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "tiny"
    words = ["--network=Tiny", f"--to={folder}", "--formats=safetensors,stablehlo"]
    assert main([str(finished), *words]) == 0
    assert len({file.stat().st_mode for file in folder.iterdir()}) == 1  # of one audience
    return folder


def test_the_tensors_are_those_of_the_network_alone(finished, written):
    from safetensors.numpy import load_file

    tensors = load_file(written / "model.safetensors")
    variables = load(finished, "Tiny", trust=True).variables
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(
            tensor, functools.reduce(dict.get, name.split("/"), variables)
        )
    assert len(tensors) == len(jax.tree.leaves(variables))
    assert not any("critic" in name or "transfer" in name for name in tensors)
    facts = json.loads((written / "architecture.json").read_text())
    assert facts["classifier"] == ["params/Dense_0/kernel", "params/Dense_0/bias"]
    assert facts["image_shape"] == [8, 8, 1] and len(facts["class_names"]) == 10


def test_stablehlo_is_for_three_platforms_with_a_free_batch(finished, written):
    exported = jax.export.deserialize(bytearray((written / "model.stablehlo").read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    images = np.random.default_rng(2).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    wanted = load(finished, "Tiny", trust=True)(images).probabilities
    np.testing.assert_allclose(exported.call(images), wanted, atol=1e-5)


def test_the_snippets_of_the_card_run_where_afd_jax_is_not(written):
    card = (written / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 2 and "test accuracy of the same alone" in card
    assert (
        "process: its last layer reproduces the prob" in card and f"jax {jax.__version__}" in card
    )
    for code in blocks:
        code += "\nimport sys; assert 'afd_jax' not in sys.modules"
        subprocess.run([sys.executable, "-I", "-c", code], check=True, cwd=written)


def test_a_changed_tensor_is_found(written, tmp_path):
    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(written, tmp_path / "copy")
    tensors = load_file(folder / "model.safetensors")
    tensors["params/Dense_0/bias"] = tensors["params/Dense_0/bias"] + 1e-3
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="digest"):
        check.check("safetensors", folder)


def test_a_file_with_other_numbers_fails(finished, tmp_path, monkeypatch):
    network = load(finished, "Tiny", trust=True)
    right = write_module._stablehlo
    wrong = functools.partial(right, lambda x: jnp.full((x.shape[0], 10), 0.1))
    monkeypatch.setattr(write_module, "_stablehlo", lambda _, shape: wrong(shape))
    with pytest.raises(WrongOutputsError, match="other probabilities"):
        write(network, tmp_path / "x", ["stablehlo"], {})


def test_only_an_earlier_export_of_the_network_is_replaced(finished, written, tmp_path, capsys):
    again = ["--formats=safetensors"]
    copy = shutil.copytree(written, tmp_path / "copy")
    assert main([str(finished), "--network=Wider", f"--to={copy}", *again]) == 2
    assert "holds 'Tiny', this is 'Wider'" in capsys.readouterr().err
    assert main([str(finished), "--network=Tiny", f"--to={copy}", *again]) == 0
    assert not (copy / "model.stablehlo").exists()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").touch()
    (tmp_path / "own" / "model.onnx").touch()
    own = [str(finished), "--network=Tiny", f"--to={tmp_path / 'own'}", *again]
    assert main(own) == 2
    assert "holds other files" in capsys.readouterr().err
    assert main([*own, "--force"]) == 0
    assert (tmp_path / "own" / "model.onnx").exists()
    assert main([str(finished), "--network=Tiny", "--to=x", "--formats=onyx"]) == 2
    assert "did you mean 'onnx'?" in capsys.readouterr().err


def test_a_damaged_export_is_replaced_only_by_force(finished, tmp_path, capsys):
    (tmp_path / "architecture.json").write_text("{")
    own = [str(finished), "--network=Tiny", f"--to={tmp_path}", "--trust", "--formats=safetensors"]
    assert main(own) == 2
    words = f"--to = '{tmp_path}': its architecture.json is damaged; name another folder, or add"
    assert words in capsys.readouterr().err
    assert main([*own, "--force"]) == 0


def test_an_unfinished_run_says_so(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "summary.json").unlink()
    export(run, tmp_path / "out", node="Tiny", trust=True, formats=["safetensors"])
    step = max(int(p.name) for p in (run / "checkpoints").iterdir() if p.name.isdecimal())
    assert f"Not finished, step {step}" in (tmp_path / "out" / "README.md").read_text()


def test_the_weights_of_an_earlier_checkpoint_have_no_accuracy(finished, written, tmp_path):
    assert "test accuracy" in (written / "README.md").read_text()
    run = shutil.copytree(finished, tmp_path / "run")
    damage(run / "checkpoints" / "24")
    export(run, tmp_path / "out", node="Tiny", trust=True, formats=["safetensors"])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "An earlier checkpoint, step 18; the run went on to step 24" in card
    assert "test accuracy" not in card


def test_an_export_that_fails_leaves_the_earlier_one(finished, written, tmp_path, monkeypatch):
    def fail(*_):
        raise SettingError("--formats", "stablehlo", "cannot convert this network")

    copy = shutil.copytree(written, tmp_path / "copy")
    monkeypatch.setattr(write_module, "_stablehlo", fail)
    formats = ["safetensors", "stablehlo"]
    with pytest.raises(SettingError, match="cannot convert"):
        export(finished, copy, node="Tiny", trust=True, formats=formats)
    for file in written.iterdir():
        assert (copy / file.name).read_bytes() == file.read_bytes()
    assert [*tmp_path.iterdir()] == [copy]


def test_an_export_stays_on_the_disk_of_its_folder(finished, tmp_path, monkeypatch):
    to, replace = tmp_path / "mounted", pathlib.Path.replace
    (to / ".export-left").mkdir(parents=True)  # by one that was killed

    def on_one_disk(own, target):
        if to in target.parents and to not in own.parents:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return replace(own, target)

    monkeypatch.setattr(pathlib.Path, "replace", on_one_disk)
    export(finished, to, node="Tiny", trust=True, formats=["safetensors"])
    assert (to / "README.md").is_file()


class Own(nn.Module):
    """A network that one part of is unusual: half precision, a scalar, a batch that it looks at."""

    classes: int
    half: bool = False
    looks: bool = False

    @nn.compact
    def __call__(self, images, *, train):
        kind = {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16} if self.half else {}
        features = nn.relu(nn.Conv(4, (3, 3), **kind)(images))
        features = features * self.param("gain", nn.initializers.ones, ())
        if self.looks and images.shape[0] > 4:
            features = features + 1
        return Outputs(nn.Dense(self.classes, **kind)(features.mean((1, 2))), features)


def trained(module):
    variables = functional(module).init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    return TrainedNetwork("own", module, variables, Recipe([0.5], [0.25]), image_shape=(8, 8, 1))


def test_half_precision_and_scalars_are_written_as_they_are(tmp_path):
    found = write(trained(Own(10, half=True)), tmp_path, ["safetensors", "stablehlo"], {})
    assert found["stablehlo"]["difference"] < 1e-5
    with np.load(tmp_path / "reference.npz") as reference:
        assert reference["probabilities"].dtype == np.float32
    tensors = json.loads((tmp_path / "architecture.json").read_text())["tensors"]
    assert tensors["params/Conv_0/kernel"]["dtype"] == "bfloat16"
    assert tensors["params/gain"] == {"shape": [], "dtype": "float32"}


def test_a_network_that_no_program_can_hold_is_a_clear_error(tmp_path):
    with pytest.raises(SettingError, match=r"cannot export this network .*; leave out stablehlo"):
        write(trained(Own(10, looks=True)), tmp_path, ["stablehlo"], {})


def test_the_card_of_a_twin_says_that_it_learned_alone(finished, tmp_path):
    export(finished, tmp_path, node="Tiny alone", trust=True, formats=["safetensors"])
    assert "A `Tiny` (a twin, which learned alone) trained" in (tmp_path / "README.md").read_text()


def test_an_unknown_format_leaves_no_folder(finished, tmp_path):
    with pytest.raises(SettingError, match="onnx"):
        export(finished, tmp_path / "new", node="Tiny", trust=True, formats=["onyx"])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("resnet8", 8),
        ("wrn-16-1", 8),
        ("vgg8", 32),
        ("mobilenet_v2", 32),
        ("shufflenet_v1", 32),
        ("shufflenet_v2", 32),
        ("densenet-40-12", 32),
        ("cifar_resnet18", 8),
        ("imagenet_resnet18", 64),
        ("resnet56", 8),
        ("nnx", 8),
        ("nnx with Dropout", 8),
    ],
)
def test_every_kind_of_layer_goes_through_onnx(name, side, tmp_path):
    pytest.importorskip("jax2onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    shape = (side, side, 1)
    own = {"nnx": OnDigits, "nnx with Dropout": functools.partial(InNNX, channels=1)}
    module = functools.partial(own[name], 10) if name in own else networks.create(name, 10)
    recipe = Recipe([0.5], [0.25])
    images = np.random.default_rng(0).integers(0, 256, (8, *shape), dtype=np.uint8)
    variables = functional(module).init(jax.random.key(0), jnp.zeros((1, *shape)))
    variables = settled(functional(module), variables, recipe.normalise(images))
    network = TrainedNetwork(name, module, variables, recipe, image_shape=shape)
    probabilities = network(images).probabilities
    assert np.std(probabilities, axis=0).mean() > 1e-4  # or nothing could be told from them
    found = write(network, tmp_path, ["onnx"], {})
    assert found["onnx"]["difference"] < 1e-5


def settled(module, variables, images):
    """The variables with these images' own statistics, so that no layer's outputs explode."""
    _, after = module.apply(variables, images, train=True, rngs={"dropout": jax.random.key(1)})
    was = {name: variables[name] for name in after}
    return {**variables, **jax.tree.map(lambda old, new: (new - 0.9 * old) / 0.1, was, dict(after))}
