"""The command line of studies: its options, its errors, and two of them at once."""

import errno
import json
import os
import platform
import re
import subprocess
import sys

import pytest

from afd_jax.errors import Interrupted, SettingError
from experiments.study import command as command_line
from experiments.study import runner
from experiments.study.records import Results
from experiments.study.runner import alone
from tests.experiments.small_study import SVG, study
from tests.running import ROOT

STARTED = """
import os, runpy, sys
os.execv = lambda file, words: print("again:", *words[1:])
sys.argv[1:] = ["--list"]
runpy.run_module("experiments.study", run_name="__main__")
"""


def test_a_study_asks_for_huge_pages_before_it_trains():
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    environment |= {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", STARTED]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if platform.libc_ver()[0] == "glibc":
        assert done.stdout.startswith("again: -c ")
    assert "few_labels" in done.stdout and done.returncode == 0


def test_without_hours_the_command_line_trains_nothing(quick, asked, tmp_path, capsys):
    assert asked("tiny") == 0 and not quick
    assert "no results yet; --hours=H trains" in capsys.readouterr().out
    assert asked("--list") == 0
    assert re.search(r"^tiny +0 of 6 +Which one\?$", capsys.readouterr().out, re.MULTILINE)
    assert asked("tiny", "--hours=1", "--only=DML") == 0 and len(quick) == 2
    assert asked("--list") == 0
    assert re.search(r"^tiny +2 of 6 +Which one\?$", capsys.readouterr().out, re.MULTILINE)
    assert asked("tiny", "--hours=1", "--part=1/2") == 0
    assert asked("tiny", "--hours=1", "--part=2/2") == 0
    assert "2 seeds each." in capsys.readouterr().out
    assert (tmp_path / "tiny.svg").read_text().startswith(SVG)


def test_a_second_runner_is_refused(quick, asked, tmp_path, capsys):
    with alone(tmp_path / "runs" / "tiny", (1, 1)):
        for own in ("1/1", "1/2"):
            assert asked("tiny", "--hours=1", f"--part={own}") == 2
            assert "this study runs already; wait for it, or" in capsys.readouterr().err
        assert not quick
    with alone(tmp_path / "runs" / "tiny", (1, 2)):
        with pytest.raises(SettingError, match=r"--runs = .*: this study runs already"):
            with alone(tmp_path / "runs" / "tiny", (1, 2)):
                pass
        assert asked("tiny", "--hours=1") == 2 and not quick
        assert asked("tiny", "--hours=1", "--part=2/2") == 0 and len(quick) >= 3
    with alone(tmp_path / "runs" / "tiny", (1, 2)):
        pass


def test_a_report_that_fails_does_not_hide_how_the_runs_ended(quick, asked, monkeypatch, capsys):
    def stopped(*_, **__):
        raise Interrupted("stopped at step 2")

    def refused(*_):
        raise SettingError("results", None, "trained with other settings")

    monkeypatch.setattr(runner.afd, "train", stopped)
    monkeypatch.setattr(command_line, "_report", refused)
    assert asked("tiny", "--hours=1") == 130
    said = capsys.readouterr()
    assert "stopped at step 2; the same command continues" in said.err
    assert "trained with other settings" in said.err


def test_the_command_line_forgets(quick, asked, tmp_path, monkeypatch, capsys):
    assert asked("tiny", "--hours=1") == 0
    monkeypatch.setattr(command_line, "load", lambda name: study(**{"method.temperature": 2.0}))
    assert asked("tiny", "--hours=1") == 2
    assert "tiny.json: method.temperature = 2.0: few steps: 'DML'" in capsys.readouterr().err
    assert len(quick) == 8  # with two looks at the teachers
    assert asked("tiny", "--hours=1", "--forget=DML") == 0
    assert "forgot 2 records of 'DML'" in capsys.readouterr().out
    assert [str(folder.parent.name) for folder, _ in quick[8:]] == ["DML", "DML"]
    # What stayed for its teachers goes, too, or its old result would come back.
    folder = tmp_path / "runs" / "tiny" / "few_steps" / "independent"
    assert (folder / "seed0").is_dir()
    assert asked("tiny", "--forget=independent") == 0 and not folder.exists()
    # Nothing of a run that is under way.
    with alone(tmp_path / "runs" / "tiny", (1, 2)):
        assert asked("tiny", "--forget=DML") == 2
    assert len(json.loads((tmp_path / "tiny.json").read_text())["records"]) == 2
    assert "this study runs already" in capsys.readouterr().err


def test_a_list_names_the_study_that_has_changed(quick, asked, monkeypatch, capsys):
    assert asked("tiny", "--hours=1") == 0
    monkeypatch.setattr(command_line, "load", lambda name: study(**{"method.temperature": 2.0}))
    assert asked("--list") == 0  # and goes on to the others
    assert "tiny.json: method.temperature = 2.0" in capsys.readouterr().out


@pytest.mark.parametrize(
    "option, words",
    [
        *((f"--part={part}", "must be") for part in ("3", "3/2", "0/2", "a/b")),
        *((f"--seeds-at-once={count}", "must be a whole number from 1") for count in (-1, 0, "x")),
        ("--hours=-1", "must be a number from 0"),
        ("--estimate=nan", "must be a number from 0"),
        ("--only=(", "no regular expression (missing )"),
    ],
)
def test_options_that_cannot_be(option, words, asked, capsys):
    with pytest.raises(SystemExit):
        asked("tiny", option)
    name, _, value = option.partition("=")
    assert f"argument {name}: '{value}': {words}" in capsys.readouterr().err


def test_a_pattern_that_fits_no_run(asked, capsys):
    assert asked("tiny", "--only=few steps: DMI") == 2
    expected = "--only = 'few steps: DMI': fits no run of this study, such as 'few steps: indep"
    assert expected in capsys.readouterr().err


def test_damaged_results_are_named(asked, tmp_path, capsys):
    (tmp_path / "tiny.json").write_text("{")
    assert asked("tiny") == 2
    assert "tiny.json': is damaged; take it from the last commit again" in capsys.readouterr().err


def test_on_a_full_disk_what_is_there_is_reported(quick, asked, capsys, monkeypatch):
    assert asked("tiny", "--hours=1", "--only=independent") == 0

    def full(self, records):
        raise OSError(errno.ENOSPC, "No space left on device", "tiny.json")

    monkeypatch.setattr(Results, "add", full)
    capsys.readouterr()
    assert asked("tiny", "--hours=1") == 1
    said = capsys.readouterr()
    assert "| independent |" in said.out and "No space left" in said.err
