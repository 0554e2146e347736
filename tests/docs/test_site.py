"""The documentation site builds without a warning, and says what the docstrings say."""

import html
import importlib
import inspect
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

pytest.importorskip("material", reason="needs the extra docs")
pytest.importorskip("mkdocstrings", reason="needs the extra docs")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder


def words(page):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", page.read_text())).split())


@pytest.mark.parametrize(
    ("page", "path"),
    [
        ("losses", "afd_jax.losses.distillation_kl"),
        ("networks", "afd_jax.networks.create"),
        ("methods", "afd_jax.methods.View"),
        ("graph", "afd_jax.graph.cyclic_pairs"),
        ("cohort", "afd_jax.engine.cohort.Cohort"),
        ("data", "afd_jax.data.load"),
        ("train", "afd_jax.runs.trainer.train"),
        ("load", "afd_jax.runs.trained.load"),
    ],
)
def test_a_page_has_the_docstring(page, path, site):
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    first = inspect.getdoc(found).splitlines()[0].replace("`", "")
    assert first in words(site / "api" / page / "index.html")


def test_signatures_can_be_read(site):
    for page in (site / "api").glob("*/index.html"):
        for shown in re.findall(r'<div class="doc-signature.*?</div>', page.read_text(), re.DOTALL):
            for line in html.unescape(re.sub(r"<[^>]+>", "", shown)).splitlines():
                assert len(line) <= 100, line


def test_maths_and_links_to_the_code_are_those_of_a_site(site):
    page = (site / "methods" / "index.html").read_text()
    assert page.count("arithmatex") > 50
    assert "$`" not in page and "```" not in page
    assert "source/configs/cifar100_afd.py" in page
    assert "def get_config" in words(site / "source" / "configs" / "cifar100_afd.py" / "index.html")
    assert (site / "source" / "experiments" / "results" / "few_labels.svg").is_file()
