"""Methods, discriminators and networks that are not of this package, named in a config."""

import json
import sys

import jax
import numpy as np
import pytest

from afd_jax.runs.trained import load
from tests.running import ROOT, command, ctrl_c_after, final_state, lines
from tests.tiny import InNNX

METHOD = '''"""Each network learns from the normalised product of what its sources predict."""

import dataclasses

import jax.numpy as jnp

from afd_jax import losses
from afd_jax.methods import Method, Terms, options


@dataclasses.dataclass(frozen=True)
class Product(Method):
    weight: float = options.number(1.0, least=0)

    def losses(self, own, sources, batch):
        product = jnp.sum(jnp.stack([source.logits for source in sources]), axis=0)
        return Terms(
            logit={
                "cross_entropy": losses.cross_entropy(own.logits, batch.targets),
                "product": self.weight * losses.distillation_kl(own.logits, product),
            }
        )
'''


class OnDigits(InNNX):
    """For images of one channel."""

    def __init__(self, classes, *, rngs):
        super().__init__(classes, inputs=1, rngs=rngs)


CONFIG = f"{ROOT}/tests/digits_config.py:tests.tiny:Tiny,tests.tiny:Wider"
SETTINGS = (
    "--config.twins=False",
    "--config.data.limit=128",
    "--config.data.pad=1",
    "--config.batch_size=32",
    "--config.eval_batch_size=64",
    "--config.duration=2 epochs",
    "--config.log_every=2 steps",
    "--config.parallel.devices=1",
)


@pytest.fixture
def outside(tmp_path, monkeypatch):
    (tmp_path / "my_methods.py").write_text(METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_methods", None)


def test_a_method_in_a_short_file_is_launched_and_continued(outside, monkeypatch, capsys):
    assert len(METHOD.splitlines()) < 40
    more = ("--config.method.name=my_methods:Product", "--config.method.weight=0.5")
    more += ("--config.graph=all_pairs",)

    def run(name):
        return command(outside / name, *more, config=CONFIG, settings=SETTINGS)

    assert run("whole") == 0
    ctrl_c_after(monkeypatch, 4)
    assert run("cut") == 130
    monkeypatch.undo()
    monkeypatch.syspath_prepend(outside)
    assert run("cut") == 0
    ours, theirs = (
        final_state(outside / n, *more, config=CONFIG, settings=SETTINGS) for n in ("whole", "cut")
    )
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert lines(outside / "cut")[0]["Tiny/loss/product"] > 0
    capsys.readouterr()
    wrong = "--config.method.weight=-1.0"
    assert command(outside / "w", *more, wrong, config=CONFIG, settings=SETTINGS) == 2
    assert "config.method.weight = -1.0: must be a number and at least 0" in capsys.readouterr().err


@pytest.mark.parametrize("critic", ["OwnCritic", "OwnCriticInNNX"])
def test_a_discriminator_of_ones_own(critic, tmp_path):
    more = (f"--config.method.critic.network=tests.tiny:{critic}",)
    config = f"{ROOT}/tests/digits_config.py:tests.tiny:Stages,tests.tiny:Stages"
    assert command(tmp_path / "w", *more, config=config, settings=SETTINGS) == 0
    settings = json.loads((tmp_path / "w" / "config.json").read_text())
    assert settings["method"]["critic"]["network"] == f"tests.tiny:{critic}"
    state = final_state(tmp_path / "w", *more, config=config, settings=SETTINGS)
    heads = state.networks["Stages"].params["heads"]["Stages"]
    assert "conv1" not in heads["critic_Stages_1"]
    assert lines(tmp_path / "w")[-3]["kind"] == "train"


def test_an_nnx_network_in_a_config_and_as_a_teacher(tmp_path, capsys):
    config = f"{ROOT}/tests/digits_config.py:tests.runs.test_from_outside:OnDigits,tests.tiny:Tiny"
    assert command(tmp_path / "pair", config=config, settings=SETTINGS) == 0
    images = np.zeros((3, 8, 8, 1), np.uint8)
    loaded = load(tmp_path / "pair", "OnDigits", trust=True)
    assert loaded(images).logits.shape == (3, 10)
    teacher = f"--config.teachers=('{tmp_path}/pair@OnDigits',)"
    student = f"{ROOT}/tests/digits_config.py:tests.tiny:Tiny"
    more = (teacher, "--config.method.name=kd", "--config.graph=own")
    # The student's config does not name the code of the teacher.
    assert command(tmp_path / "student", *more, config=student, settings=SETTINGS) == 2
    error = capsys.readouterr().err
    assert "config.teachers[0] = " in error and "--config.trust=True" in error
    more = (*more, "--config.trust=True")
    assert command(tmp_path / "student", *more, config=student, settings=SETTINGS) == 0
    state = final_state(tmp_path / "student", *more, config=student, settings=SETTINGS)
    jax.tree.map(
        np.testing.assert_array_equal,
        state.networks["teacher"].params["network"],
        loaded.variables["params"],
    )
