"""A study that is done, and runs that do nothing."""

import types

import pytest

from experiments.study import command as command_line
from experiments.study import runner
from tests.experiments.small_study import record, study, trained_in


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder of a study that is done."""
    folder = tmp_path_factory.mktemp("study")
    assert trained_in(folder, study())[0]
    return folder


@pytest.fixture
def quick(monkeypatch):
    """Runs that do nothing; a list of (folder, settings) of what was asked for."""
    asked = []

    def train(config, folder, *, show_progress):
        asked.append((folder, config))
        folder.mkdir(parents=True, exist_ok=True)

    def records(folder, block, setting):
        config = [own for asked_for, own in asked if asked_for == folder][-1]
        seeds = range(config.seed, config.seed + config.seeds)
        return [record(setting.name, seed, {"a": ("a", 0.5)}, block.name) for seed in seeds]

    monkeypatch.setattr(runner, "afd", types.SimpleNamespace(train=train))
    monkeypatch.setattr(runner, "records_of", records)
    monkeypatch.setattr(runner.jax, "clear_caches", lambda: None)
    return asked


@pytest.fixture
def asked(quick, tmp_path, monkeypatch):
    """The command line, with the study above for any name."""
    monkeypatch.setattr(command_line, "load", lambda name: study())
    monkeypatch.setattr(command_line, "NAMES", ("tiny",))
    own = [f"--runs={tmp_path}/runs", f"--results={tmp_path}"]
    return lambda *arguments: command_line.main([*arguments, *own])
