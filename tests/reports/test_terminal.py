"""The display while the first step compiles: seconds on a terminal, few lines elsewhere."""

import io
import math
import re
import sys
import time

from afd_jax.reports import terminal
from afd_jax.reports.terminal import Progress

FACTS = {"nodes": [], "edges": []}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def wait_for(words, read):
    end = time.monotonic() + 10
    while words not in read():
        assert time.monotonic() < end, read()
        time.sleep(0.01)


def test_a_terminal_shows_how_long_it_compiles(monkeypatch):
    monkeypatch.setattr(terminal, "_TICK", 0.3)
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with Progress(FACTS, total_steps=5, batch_size=2, start=0, shown=True) as progress:
        wait_for("compiling ... 1 s", screen.getvalue)
        progress.compiled()
        assert re.search(r"compiled in [1-9]\d* s", screen.getvalue())
        length = len(screen.getvalue())
        time.sleep(0.7)
        assert len(screen.getvalue()) == length  # nobody ticks any more
    assert "compiling ... 0 s" in screen.getvalue()


def test_lines_come_ever_more_seldom(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "_TICK", 0.05)
    monkeypatch.setattr(terminal, "_FIRST_LINE", 0.1)
    with Progress(FACTS, total_steps=5, batch_size=2, start=0, shown=True):
        begin = time.monotonic()
        time.sleep(1.2)
    seconds = time.monotonic() - begin  # more, if the machine is busy
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "compiling the training step ..."
    # After 0.1, 0.2, 0.4, 0.8, ... seconds.
    assert 1 <= len(lines[1:]) <= 1 + math.log2(seconds / 0.1)
    assert all(w.startswith("compiling ... ") for w in lines[1:])


def test_what_is_not_shown_says_nothing(capsys):
    with Progress(FACTS, total_steps=5, batch_size=2, start=0, shown=False) as progress:
        progress.compiled()
    assert capsys.readouterr() == ("", "")


def test_a_rate_that_was_not_measured_is_not_shown(capsys):
    """In the first window after an interruption, which may be the first step alone."""
    with Progress(FACTS, total_steps=5, batch_size=10, start=0, shown=True) as progress:
        progress.trained({"step": 1})
        progress.trained({"step": 2, "images_per_second": 7.4})
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.endswith("%, ETA unknown") and second.endswith("%, 7 img/s, ETA 0:00:04")
