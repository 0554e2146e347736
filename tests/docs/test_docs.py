"""README and docs: examples run as they stand there; commands, links and graphs are up to date."""

import configparser
import importlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from afd_jax import methods
from afd_jax.data.cache import cache_dir
from afd_jax.graph import Graph, Node
from afd_jax.methods.branches import BranchMethod
from afd_jax.runs import assemble
from afd_jax.runs.choices import make_method
from afd_jax.runs.overrides import read_config
from tests.running import command

ROOT = pathlib.Path(__file__).parents[2]
DOCS = sorted(
    str(p.relative_to(ROOT)) for p in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
)
GALLERY = (ROOT / "docs" / "methods.md").read_text()

# Runs blocks (line, code) one after another; a traceback names document and line. A block that
# imports nothing goes on where the one before has ended; `images` are what a reader has.
RUNNER = """
import json, re, sys
import numpy as np
from afd_jax.runs import trained
trained._require_trust = lambda *_: None  # the networks of the run are the tests' own
for line, code in json.load(sys.stdin):
    if re.search("^(import|from) ", code, re.MULTILINE):
        namespace = {"__name__": "__main__", "images": np.zeros((2, 8, 8, 1), np.uint8)}
    exec(compile("\\n" * line + code, sys.argv[1], "exec"), namespace)
"""


def blocks(document, language):
    """(line, text) of a document's code in one language."""
    text = (ROOT / document).read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(text[: match.start(1)].count("\n"), match.group(1)) for match in found]


def name_of_file(code):
    """Of a module that the reader is to write, `# my_method.py` in its first line."""
    named = re.match(r"# ([\w/]+\.py)\n", code)
    return named and named.group(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a reader would be: with the files that the docs tell to write, and a run to load."""
    folder = tmp_path_factory.mktemp("reader")
    for document in DOCS:
        for _, code in blocks(document, "python"):
            if name := name_of_file(code):
                (folder / name).write_text(code)
    (folder / "resnet8.pth").touch()
    networks = ",".join(f"tests.docs.stand_ins:{name}" for name in ("resnet8", "resnet14"))
    config = f"digits_afd:{networks}"
    assert command(folder / "runs" / "digits", "--config.seeds=2", config=config) == 0
    return folder


@pytest.mark.parametrize("document", [d for d in DOCS if blocks(d, "python")])
def test_python_runs(document, folder):
    code = [(line, own) for line, own in blocks(document, "python") if not name_of_file(own)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
        "JAX_COMPILATION_CACHE_DIR": str(cache_dir("xla")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", RUNNER, document],
        input=json.dumps(code),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env=environment,
    )
    assert done.returncode == 0, done.stderr


def test_files_that_the_docs_show_are_those_of_the_package():
    shown = re.findall(r"all of\s+\[`([\w/.]+)`\][^\n]*\n\n```python\n(.*?)```", GALLERY, re.DOTALL)
    assert shown
    for path, code in shown:
        assert code == (ROOT / path).read_text(), path


def test_readme_and_its_examples_are_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 170
    for line, code in blocks("README.md", "python"):
        assert sum(map(bool, code.splitlines())) <= 15, f"README.md, line {line}"


def commands(document):
    """The words of each command line; a line that ends with a backslash goes on."""
    for _, text in blocks(document, "(?:bash|sh)"):
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|\|", line):
                if words := shlex.split(part, comments=True):
                    yield words


TRAININGS = [
    (document, words)
    for document in DOCS
    for words in commands(document)
    if words[0] == "afd-train" or words[:3] == ["python", "-m", "afd_jax"]
]


@pytest.mark.parametrize("document", [d for d in DOCS if blocks(d, "(?:bash|sh)")])
def test_shell_blocks_are_shell(document):
    for line, text in blocks(document, "(?:bash|sh)"):
        done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
        assert done.returncode == 0, f"{document}, line {line}: {done.stderr}"


class Enough(Exception):
    """All that is checked without data has been."""


@pytest.mark.parametrize(("document", "words"), TRAININGS)
def test_training_commands_work(document, words, folder, monkeypatch):
    """Their settings are checked, up to the loading of the data."""

    def load(*_):
        raise Enough

    monkeypatch.setattr(assemble, "load_splits", load)
    monkeypatch.syspath_prepend(folder)
    flags = [word for word in words if word.startswith("--")]
    own = {flag.partition("=")[0]: flag.partition("=")[2] for flag in flags}
    overrides = [flag for flag in flags if flag.startswith("--config.")]
    known = {"--config", "--workdir", "--dry-run", "--distributed", "--list", "--help"}
    unknown = {*own} - known - {override.partition("=")[0] for override in overrides}
    assert not unknown, f"{document}: {unknown}"
    if "--config" in own:
        monkeypatch.chdir(folder)
        config = read_config(own["--config"].replace("configs/", f"{ROOT}/configs/"), overrides)
        with pytest.raises(Enough):
            assemble.assemble(config, own.get("--workdir", ""))
        if critic := getattr(make_method(config.method), "critic", None):
            assert critic.module()


@pytest.mark.parametrize("name", ["evaluate", "export", "report"])
def test_options_of_the_other_commands_exist(name, capsys):
    with pytest.raises(SystemExit):
        importlib.import_module(f"afd_jax.commands.{name}").main(["--help"])
    text = capsys.readouterr().out
    program = re.search(r"usage: (\S+)", text).group(1)
    known = {*re.findall(r"--[\w-]+", text)}
    for document in DOCS:
        for words in commands(document):
            if words[0] == program:
                given = {word.partition("=")[0] for word in words if word.startswith("--")}
                assert given <= known, document


def test_other_commands_name_what_there_is():
    """Scripts by their paths, extras by their names."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    extras = {*settings["options.extras_require"]}
    for document in DOCS:
        for words in commands(document):
            for word in words:
                if re.fullmatch(r"(experiments|configs|tests)/[\w./-]+\.\w+", word):
                    assert (ROOT / word).exists(), f"{document}: {word}"
                if named := re.fullmatch(r"(?:\.|afd[-_]jax)\[([\w,]+)\]", word):
                    assert {*named.group(1).split(",")} <= extras, f"{document}: {word}"


@pytest.mark.parametrize("document", [*DOCS, "CONTRIBUTING.md"])
def test_links_and_paths_lead_somewhere(document):
    file = ROOT / document
    text = re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    for link in links:
        if not re.match(r"https?:|mailto:", link):
            path, _, anchor = link.partition("#")
            target = (file.parent / path).resolve() if path else file
            assert target.exists(), link
            if anchor:
                assert anchor in anchors(target.read_text()), link
    rooms = "afd_jax|configs|docs|experiments|tests"
    for path in re.findall(rf"`(?:python |bash )?((?:{rooms})/[\w./-]+)[`\s]", text):
        assert (ROOT / path).exists(), path


def anchors(text):
    """Of a document's headings, as code hosts make them."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


PEERS = ("network 1", "network 2")
# What is no method without being told more.
MADE = {
    "mixed": {
        "by_edge": {
            PEERS: "afd",
            PEERS[::-1]: "afd",
            ("teacher", PEERS[0]): "kd",
            ("teacher", PEERS[1]): "kd",
        }
    }
}


@pytest.mark.parametrize("name", methods.NAMES)
def test_the_gallery_draws_the_methods_own_graph(name):
    """The page names the networks and says how many; roles and edges are the method's."""
    method = methods.find(name)(**MADE.get(name, {}))
    section = GALLERY.split(f"\n## {name}\n")[1].split("\n## ")[0]
    drawn = re.search(r"```mermaid\n(.*?)\n```", section, re.DOTALL).group(1)
    names = re.findall(r'\["(.*)"\]', drawn)
    if isinstance(method, BranchMethod):
        own = method.combination(classes=10).nodes
        assert (*own,) == (*(n for n in names if " of " not in n),)
    nodes = Graph(tuple(node(n, method) for n in names))
    for student in nodes.students:
        assert (method.beside is None) == (nodes.beside(student, str(method.beside)) is None)
    assert len(nodes.teachers) >= method.teachers[0]
    edges = method.edges(nodes, "own")
    assert drawn == Graph(nodes.nodes, edges, method.edge_labels).mermaid()
    assert f"(../configs/cifar100_{name}.py)" in section


def node(name, method):
    """By what a run calls its nodes."""
    for role, words in (("average", "average of "), ("snapshot", "last epoch of ")):
        if name.startswith(words):
            return Node(name, role, name.removeprefix(words))
    if isinstance(method, BranchMethod):
        students = method.combination(classes=10).nodes[: method.branches]
        return Node(name, "student" if name in students else "ensemble")
    return Node(name, "teacher" if name.startswith("teacher") else "student")


@pytest.mark.parametrize("document", DOCS)
def test_nothing_is_left_to_be_filled_in(document):
    assert not re.findall(r"^[A-Z_]+$|TODO|FIXME", (ROOT / document).read_text(), re.MULTILINE)
