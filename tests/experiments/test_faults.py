"""A small part of what `python -m experiments.faults` does, the same each time; it can fail."""

import random

import jax.numpy as jnp
import pytest

from afd_jax import losses
from afd_jax.errors import SettingError
from experiments.faults import calls, damage, disks, files, settings
from experiments.faults.__main__ import _STRUCK, KINDS, main
from experiments.faults.fuzz import fuzz, refusal
from experiments.faults.runs import ROOT, RUNS, Small

CASES = {
    "settings": (settings.overrides(), settings.judge, 60),
    "losses": (calls.calls(), calls.judge, 50),
    "files": (files.files(), files.judge, 80),
}


@pytest.mark.parametrize("kind", CASES)
def test_generated_input_is_taken_or_refused_in_a_line(kind):
    cases, judge, times = CASES[kind]
    outcomes = fuzz(cases, judge, times, seed=0)
    assert {*outcomes} == {"accepted", "refused in a line"}, outcomes
    assert outcomes.total() == times


def test_a_loss_that_lets_wrong_input_pass_is_found(monkeypatch):
    monkeypatch.setattr(losses, "mean", lambda values, where=None: jnp.nan * jnp.sum(values))
    outcomes = fuzz(calls.calls(), calls.judge, 200, seed=0)
    assert any(outcome.startswith("not finite: ('mean'") for outcome in outcomes), outcomes


def test_words_of_an_error_are_judged():
    assert refusal(SettingError("a", 1, "b"), (SettingError,), 0) == "refused in a line"
    for error in (ValueError("a\nb"), KeyError("a"), ValueError(""), ValueError("x" * 2000)):
        assert refusal(error, (ValueError,), 0) not in damage.GOOD


def test_damaged_checkpoints_are_told(finished, tmp_path):
    draw = random.Random(0)
    outcomes = [damage.loaded(RUNS[0], finished, tmp_path / "struck", draw) for _ in range(12)]
    assert {*outcomes} <= damage.GOOD and len({*outcomes}) > 1, outcomes


@pytest.mark.skipif(not disks.possible(), reason="needs Linux with user namespaces")
def test_a_full_disk_is_said_and_the_run_goes_on_later(tmp_path):
    settings = ("method.name=independent", "data.limit=96", "batch_size=32", "duration=6 steps")
    run = Small("tiny", f"{ROOT}/tests/digits_config.py:tests.tiny:Tiny", settings)
    assert run.finish(tmp_path / "whole") == (0, "")
    files = (p for p in (tmp_path / "whole").rglob("*") if p.is_file())
    assert sum(p.stat().st_size for p in files) > 80 * 1024  # more than either disk holds
    outcomes = [
        disks.disturbed(run, tmp_path / "whole", tmp_path / "struck", random.Random(seed))
        for seed in (2, 39)  # 21 and 76 KiB
    ]
    assert {*outcomes} == {"equal"}, outcomes


def test_kinds_are_named(capsys):
    with pytest.raises(SystemExit):
        main(["kils"])
    words = capsys.readouterr().err
    assert all(kind in words for kind in KINDS)


def test_a_run_that_always_ends_first_cannot_be_killed(monkeypatch):
    monkeypatch.setattr(Small, "finish", lambda self, workdir: (0, ""))
    monkeypatch.setitem(_STRUCK, "kills", (lambda *_: [], RUNS[:1]))
    with pytest.raises(SystemExit, match="quick start: ends before it can be killed"):
        main(["kills", "--times", "2"])
