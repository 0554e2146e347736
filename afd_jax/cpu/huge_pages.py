"""Memory of the process: how the C library asks the system for it."""

import glob
import os
import sys

_NAME, _VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/accel*", "/dev/vfio/[0-9]*", "/dev/kfd")


def use_huge_pages() -> None:
    """Starts this program again, as the same process, with large blocks of memory in huge pages.

    A step on the CPU takes a gigabyte and gives it back at its end. In pages of 4 KiB, mapped anew
    each time, that is a sixth of the step (docs/speed.md). glibc reads its settings only as it
    starts. Does nothing where that would not help or would do harm: with another C library, with an
    accelerator, in a notebook, under a debugger, or where GLIBC_TUNABLES is set already; the system
    may ignore the request, too. To be called first of all: what the process has done is lost.
    """
    if _NAME in os.environ or not sys.executable or not sys.platform.startswith("linux"):
        return
    if _watched() or not _on_cpu() or not _glibc():
        return
    os.environ[_NAME] = _VALUE
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _watched() -> bool:
    """Whether a person looks on who would lose the process: in a notebook or a debugger."""
    loaded = {"IPython", "ipykernel", "debugpy", "pydevd"} & sys.modules.keys()
    return bool(loaded) or sys.gettrace() is not None


def _on_cpu() -> bool:
    """Whether JAX will run on the CPU, as far as that can be told without importing it."""
    named = os.environ.get("JAX_PLATFORMS") or os.environ.get("JAX_PLATFORM_NAME")
    if named:
        return named.split(",")[0].strip() == "cpu"
    return not any(glob.glob(pattern) for pattern in _ACCELERATORS)


def _glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (AttributeError, ValueError, OSError):  # of other systems
        return False
