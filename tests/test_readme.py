"""The README's examples run as they stand there."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^## ([^\n]+)\n\n```python\n(.*?)```", README, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("title", ["One AFD step by hand", "One loss in somebody else's loop"])
def test_example_runs(title):
    code = dict(EXAMPLES)[title]
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_examples_are_as_short_as_they_say():
    lengths = {title: sum(map(bool, code.splitlines())) for title, code in EXAMPLES}
    assert lengths["One AFD step by hand"] <= 15
    assert lengths["One loss in somebody else's loop"] <= 10


def test_files_that_the_readme_names_exist():
    for target in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / target).exists(), target


def test_nothing_is_left_to_be_filled_in():
    assert not re.findall(r"^[A-Z_]+$", README, re.MULTILINE)
