"""README and gallery: examples run as they stand there, graphs and links are up to date."""

import pathlib
import re
import subprocess
import sys

import pytest

from afd_jax.methods import METHODS
from tests import tiny

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GALLERY = (ROOT / "docs" / "methods.md").read_text()
EXAMPLES = re.findall(r"^## ([^\n]+)\n\n```python\n(.*?)```", README, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "title", ["One AFD step by hand", "One loss in somebody else's loop", "Add a method"]
)
def test_example_runs(title):
    code = dict(EXAMPLES).get(title) or GALLERY.split("```python\n")[1].split("```")[0]
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


def test_files_that_the_docs_name_exist():
    for folder, text in ((ROOT, README), (ROOT / "docs", GALLERY)):
        for target in re.findall(r"\]\(([\w./-]+)\)", text):
            assert (folder / target).exists(), target


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"paraphraser"}))  # a part of ft
def test_the_gallery_draws_the_methods_own_graph(name):
    method = METHODS[name]
    if hasattr(method, "branch_names"):
        own = method()
        nodes = own.combination(tiny.Stages(5)).nodes
        if own.follower:
            nodes = (*nodes, *(f"average of {node}" for node in nodes))
    elif name == "independent" or method.own_graph != "none":
        nodes = ["network"] * 3
        own = method.from_settings("own", nodes, {})
    else:
        teachers = 3 if name == "feed" else method.teacher_count[0]
        followers = [f"{method.follower.name} network"] if method.follower else []
        nodes = ["network", *followers, *["teacher"] * teachers]
        own = method.from_settings("own", ["network"], {}, teachers)
    section = GALLERY.split(f"\n## {name}\n")[1].split("\n## ")[0]
    assert f"```mermaid\n{own.graph.mermaid(nodes)}\n```" in section
    assert f"(../configs/cifar100_{name}.py)" in section


def test_nothing_is_left_to_be_filled_in():
    assert not re.findall(r"^[A-Z_]+$", README, re.MULTILINE)
