"""Count the processors that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["available_cpus"]

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def available_cpus() -> int:
    """Return the CPUs that affinity, SLURM's allocation and the cgroup's quota allow.

    The count of the host would be too high: a container or a job has a part of the host.
    """
    count = len(os.sched_getaffinity(0))
    if (slurm := os.environ.get("SLURM_CPUS_PER_TASK", "")).isdigit():
        count = min(count, int(slurm))
    try:
        quota, period = CGROUP_QUOTA.read_text().split()
        count = min(count, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2, or no quota ("max")
    return max(1, count)
