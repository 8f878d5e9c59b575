"""How many processors there are for the work, and what fits into the memory it was given."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

__all__ = ["available_cpus", "limit_threads"]

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


log = logging.getLogger(__name__)


def available_cpus() -> int:
    """CPUs that this process may use: affinity, SLURM's allocation and the cgroup's quota.

    The host's count is not it: a container or a job has a part of the host.
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


def limit_threads(threads: int, worker_threads: int) -> None:
    """Limit the threads of this process, and of the processes that it will start.

    Parameters
    ----------
    threads : int
        Of this process: torch and the BLAS libraries.
    worker_threads : int
        Of each process that reads runs.
    """
    torch.set_num_threads(threads)
    threadpool_limits(threads)
    for variable in THREAD_VARIABLES:  # read by libraries when a new process loads them
        os.environ[variable] = str(worker_threads)
