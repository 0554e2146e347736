"""Huge pages for what a step takes and gives back."""

import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
if sys.argv[1] == "huge":
    from afd_jax.speedups import use_huge_pages
    use_huge_pages()
import jax, jax.numpy as jnp
column = jnp.ones((4096, 64))
program = jax.jit(lambda x: (x * column @ column.T) @ column)  # 64 MiB in between
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
program(1.0).block_until_ready()
before = faults()
program(2.0).block_until_ready()
print(faults() - before)
"""
SYSTEM = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    not SYSTEM.is_file() or "[madvise]" not in SYSTEM.read_text(),
    reason="this system gives no huge pages, or gives them unasked",
)
def test_memory_comes_in_huge_pages(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}

    def new_pages(how):
        command = [sys.executable, script, how]
        run = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
        return int(run.stdout)

    small = new_pages("small")
    assert small > 16_000
    assert new_pages("huge") < small / 4  # a busy system has not all of them
