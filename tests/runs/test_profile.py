"""The profile's trace opens, holds the steps asked for, and is made once; peak memory."""

import gzip
import json
import re
import types

import pytest

from afd_jax.errors import SettingError
from afd_jax.runs.profile import peak_memory, read_span
from tests.running import SETTINGS, command, ctrl_c_after, lines

SMALL = (*SETTINGS[:-1], "--config.method.name=dml", "--config.graph=all_pairs")


def traces(workdir):
    return list((workdir / "profile").rglob("perfetto_trace.json.gz"))


def test_a_trace_of_some_steps_opens_and_is_made_once(tmp_path, monkeypatch):
    ctrl_c_after(monkeypatch, 12)
    assert command(tmp_path, "--config.profile=3 steps at 7", settings=SMALL) == 130
    monkeypatch.undo()
    (file,) = traces(tmp_path)
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    # Three calls of the compiled step, and no compilation: that was before.
    names = [e.get("name", "") for e in events]
    assert sum(bool(re.fullmatch(r"\$program.py:\d+ __call__", n)) for n in names) == 3
    assert not any("backend_compile" in n for n in names)
    assert command(tmp_path, "--config.profile=4 steps at 6", settings=SMALL) == 0
    assert traces(tmp_path) == [file]
    assert not any("peak_memory_bytes" in r for r in lines(tmp_path))  # a CPU does not say


@pytest.mark.parametrize(
    "text, words",
    [
        ("20 at 100", "must be empty, or a number of steps and where they begin, such as '20 st"),
        ("0 steps at 3", "must be empty, or a number"),
        ("5 steps at 0", "the first step compiles; begin at 1, or later"),
        ("20 steps at 5", "ends after the run, which has 24 steps"),
    ],
)
def test_a_profile_that_cannot_be_is_named_first(text, words, tmp_path, capsys):
    assert command(tmp_path / "new", f"--config.profile={text}", settings=SMALL) == 2
    assert f"config.profile = {text!r}: {words}" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_profile_may_reach_the_last_step():
    assert read_span("20 steps at 4", 24).last == 24
    with pytest.raises(SettingError):
        read_span("21 steps at 4", 24)


def device(peak, process=0):
    stats = None if peak is None else {"peak_bytes_in_use": peak}
    return types.SimpleNamespace(memory_stats=lambda: stats, process_index=process)


def test_peak_memory_is_the_fullest_device_of_this_host():
    assert peak_memory([device(5), device(9), device(99, 1)]) == {"peak_memory_bytes": 9}
    assert peak_memory([device(None)]) == {}
