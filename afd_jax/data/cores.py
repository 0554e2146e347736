"""How many processor cores are ours: on shared machines and in containers, less than there are."""

import math
import os
import pathlib

_QUOTA = pathlib.Path("/sys/fs/cgroup/cpu.max")  # of a container, in Linux's version 2


def usable_cores() -> int:
    """Cores that this process may use, by its affinity (SLURM) and its quota (Kubernetes)."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        cores = os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # none, or "max"
        return cores
