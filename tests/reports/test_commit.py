"""The commit that a summary names, and when it is called dirty."""

import shutil
import subprocess

import pytest

from afd_jax.reports.summary import commit


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_only_changed_python_files_make_a_commit_dirty(tmp_path):
    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    code, results, inner = tmp_path / "code.py", tmp_path / "results.json", tmp_path / "inner"
    assert commit(tmp_path) is None  # no checkout
    git("init")
    inner.mkdir()
    (inner / "more.py").touch()
    code.write_text("x = 1\n")
    results.write_text("{}")
    git("add", ".")
    git("commit", "--message", "first")
    clean = commit(inner)
    assert clean and not clean.endswith("-dirty")
    results.write_text("[]")
    (tmp_path / "notes.txt").write_text("not under version control")
    assert commit(inner) == clean
    code.write_text("x = 2\n")
    assert commit(inner) == clean + "-dirty"
    installed = tmp_path / ".venv" / "afd_jax"
    installed.mkdir(parents=True)
    (installed / "summary.py").touch()
    assert commit(installed) is None
