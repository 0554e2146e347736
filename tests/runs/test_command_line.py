"""The command line: names to choose from, and what is missing, each in few words."""

import importlib.util
import subprocess
import sys

import pytest

from afd_jax import methods, networks
from afd_jax.commands import train as train_command
from afd_jax.commands.train import main
from afd_jax.runs import overrides
from afd_jax.runs.configs import list_configs


def test_list_names_configs_methods_and_networks(capsys):
    assert main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert "  digits_afd                Quick start: two small networks" in printed
    words = set(printed.replace(",", " ").split())
    assert words >= {*list_configs(), *methods.NAMES, *networks.NAMES}


def test_without_a_config_it_says_where_names_are(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--workdir=runs/x"])
    assert stop.value.code == 2
    assert "--config: name a config; --list prints" in capsys.readouterr().err


def test_an_unknown_config_is_one_line(capsys):
    assert main(["--config=digits_adf:resnet8", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --config = 'digits_adf': no such file, ")
    assert "did you mean 'digits_afd'?" in error
    assert len(error.splitlines()) == 1


def test_a_dry_run_may_stand_before_a_setting_with_a_space(monkeypatch):
    seen = []
    monkeypatch.setattr(train_command, "_run", lambda *given: seen.append(given) or 0)
    assert main(["--config=digits_afd", "--dry-run", "--config.duration=20 epochs"]) == 0
    assert main(["--config=digits_afd", "--dry-run=timed", "--config.duration=20 epochs"]) == 0
    assert [known.dry_run for known, _ in seen] == ["plan", "timed"]
    assert {*map(tuple, (more for _, more in seen))} == {("--config.duration=20 epochs",)}


def test_help_answers_without_jax():
    code = "import sys; sys.modules['jax'] = None\n"
    code += "from afd_jax.commands.train import main; main(['-h'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--config=digits_afd" in done.stdout


def test_what_every_run_needs_is_missed_before_it_starts(monkeypatch, tmp_path, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tqdm" else found(name)
    )
    assert main(["--config=digits_afd", f"--workdir={tmp_path}/new"]) == 2
    error = capsys.readouterr().err
    assert error == "error: tqdm is missing; pip install 'afd-jax[train]'\n"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "module, extra",
    [("tensorflow_datasets", "train"), ("sklearn", "train"), ("grain", "streaming")],
)
def test_a_missing_module_names_its_extra(module, extra, monkeypatch, capsys):
    def fail(*_):
        raise ModuleNotFoundError(f"No module named {module!r}", name=f"{module}.part")

    monkeypatch.setattr(overrides, "read_config", fail)
    assert main(["--config=digits_afd", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert error == f"error: {module} is missing; pip install 'afd-jax[{extra}]'\n"


def test_a_module_of_ones_own_that_is_missing_is_not_hidden(monkeypatch):
    def fail(*_):
        raise ModuleNotFoundError("No module named 'mine'", name="mine")

    monkeypatch.setattr(overrides, "read_config", fail)
    with pytest.raises(ModuleNotFoundError, match="mine"):
        main(["--config=digits_afd", "--dry-run"])


def test_output_that_nobody_reads_on_ends_quietly():
    """As with `afd-train --list | head -1`."""
    code = "import sys; from afd_jax.commands.train import main; sys.exit(main(['--list']))"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as program:
        program.stdout.close()
        assert program.stderr.read() == b"" and program.wait(timeout=60) == 141
