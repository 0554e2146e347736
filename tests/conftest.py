"""Eight fake devices, no silent broadcasting, quick compilation and a cache that outlives a run."""

import importlib.metadata
import os
import pathlib
import shutil
import tempfile

# Tests compile much and compute little, so the compiler is told not to optimise. The last flag
# halves its time; XLA of jax 0.11 and later does not know it.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
        "--xla_cpu_parallel_codegen_split_count=2",
        "--xla_cpu_use_fusion_emitters=false"
        if importlib.metadata.version("jaxlib") < "0.11"
        else "",
    ]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "AFD_JAX_CACHE", str(pathlib.Path(tempfile.gettempdir()) / "afd_jax_test_cache")
)

import jax
import pytest

from afd_jax.data.cache import cache_dir

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(cache_dir("xla")))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture
def double():
    """Float64 for the length of a test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def strict():
    """No mixing of types for the length of a test; Optax and Flax mix some, our losses must not."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a finished run; tests that write into it take a copy."""
    from tests.running import command

    workdir = tmp_path_factory.mktemp("finished")
    assert command(workdir) == 0
    return workdir


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(finished, tmp_path / "copy")


def pytest_collection_modifyitems(items):
    """The longest test begins first, so that nobody waits for it at the end."""
    items.sort(key=lambda item: "two_processes" not in item.name)
