"""Memory of the process: what the C library does with what is freed."""

import ctypes

# Parameters of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed() -> bool:
    """Keeps freed memory for the next request, where the C library is glibc.

    A step on the CPU takes a gigabyte and frees it at its end. Large blocks go back to the system
    by default, and each of their pages is zeroed and mapped anew in the next step: a tenth of its
    time (docs/speed.md). Works only before JAX starts its threads, so before the first array.

    Returns:
      Whether this C library does so now.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # of another C library
        return False
    # Arenas after the first give large blocks back whatever they are told, so there is one.
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
    return all([mallopt(*setting) for setting in settings])
