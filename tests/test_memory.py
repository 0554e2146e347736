"""The program's hold on freed memory."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
if sys.argv[1] == "keep":
    from afd_jax.memory import keep_freed
    assert keep_freed()
import jax, jax.numpy as jnp
column = jnp.ones((4096, 64))
program = jax.jit(lambda x: (x * column @ column.T) @ column)  # 64 MiB in between
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
program(1.0).block_until_ready()
before = faults()
program(2.0).block_until_ready()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_what_is_freed_needs_no_new_pages():
    def new_pages(how):
        command = [sys.executable, "-c", SCRIPT, how]
        return int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)

    assert new_pages("give back") > 16_000
    assert new_pages("keep") < 1_000
