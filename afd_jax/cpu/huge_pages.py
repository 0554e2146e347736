"""Memory of the process: how the C library asks the system for it."""

import os
import sys

_NAME, _VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def use_huge_pages() -> None:
    """Starts this program again, as the same process, with large blocks of memory in huge pages.

    A step on the CPU takes a gigabyte and gives it back at its end. In pages of 4 KiB, mapped anew
    each time, that is a sixth of the step (docs/speed.md). glibc reads its settings only as it
    starts. Does nothing with another C library, or where GLIBC_TUNABLES is set already; the system
    may ignore the request, too. To be called first of all: what the process has done is lost.
    """
    if _NAME in os.environ or not sys.executable or not _glibc():
        return
    os.environ[_NAME] = _VALUE
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (AttributeError, ValueError, OSError):  # of other systems
        return False
