"""Tiny runs of methods on maps and relations: stopped and continued, they end bit-equal."""

import jax
import numpy as np
import pytest

from tests.running import ROOT, command, ctrl_c_after, final_state

SETTINGS = (
    "--config.twins=False",
    "--config.graph=own",
    "--config.data.limit=96",
    "--config.batch_size=32",
    "--config.eval_batch_size=64",
    "--config.duration=2 epochs",
    "--config.log_every=1 steps",
    "--config.parallel.devices=1",
)
PEERS = {"dcm": {"depth": 2}, "mcl": {"size": 4}, "mgd": {}}
TAUGHT = ("sp", "rkd", "pkt", "vid", "reviewkd", "block_kd", "mgd", "crd")


def config(*networks):
    names = ",".join(f"tests.tiny:{name}" for name in networks)
    return f"{ROOT}/tests/digits_config.py:{names}"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("teacher")
    alone = "--config.method.name=independent"
    assert command(workdir, alone, config=config("Stages"), settings=SETTINGS) == 0
    return f"--config.teachers=('{workdir}',)"


@pytest.mark.parametrize("method", TAUGHT)
def test_a_run_under_a_teacher_continues_bit_equal(method, teacher, tmp_path, monkeypatch):
    require_bit_equal(tmp_path, monkeypatch, config("Stages"), method, teacher)


def test_a_gate_over_two_teachers_continues_bit_equal(teacher, tmp_path, monkeypatch):
    alone = ("--config.method.name=independent", "--config.seed=5")
    assert command(tmp_path / "other", *alone, config=config("Stages"), settings=SETTINGS) == 0
    both = teacher.replace(",)", f",'{tmp_path / 'other'}')")
    require_bit_equal(tmp_path, monkeypatch, config("Stages"), "ensemble_kd", both)


@pytest.mark.parametrize("method", PEERS)
def test_a_run_of_peers_continues_bit_equal(method, tmp_path, monkeypatch):
    options = (f"--config.method.{name}={value}" for name, value in PEERS[method].items())
    require_bit_equal(tmp_path, monkeypatch, config("Stages", "Stages"), method, *options)


def require_bit_equal(tmp_path, monkeypatch, network, method, *more):
    more = (f"--config.method.name={method}", *more)
    given = {"config": network, "settings": SETTINGS}
    assert command(tmp_path / "whole", *more, **given) == 0
    with monkeypatch.context() as patch:
        ctrl_c_after(patch, 2)  # in the middle of the first epoch
        assert command(tmp_path / "cut", *more, **given) == 130
    assert command(tmp_path / "cut", *more, **given) == 0
    ours, theirs = (final_state(tmp_path / w, *more, **given) for w in ("whole", "cut"))
    assert int(ours.step) == 6
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
