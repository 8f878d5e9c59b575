"""How many processors there are for the work, and what fits into the memory it was given."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from fmrisynth.bids.dataset import Run
from fmrisynth.errors import UsageError

__all__ = ["available_cpus", "fitting_processes", "limit_threads"]

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# Measured at their peak, in the size of the run's volumes as float32 (X·Y·Z·T·4 bytes): 3.2 to
# prepare a run, 5.3 for its first level, 4.6 for synthesis, which reads ahead and writes behind,
# 9.0 for the simulators; and what a process takes before it reads anything.
WORKER_RUNS, WORKER_GB = 6.0, 0.4
MAIN_RUNS, SIMULATOR_RUNS, MAIN_GB = 6.0, 10.0, 1.0

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


def run_gigabytes(run: Run) -> float:
    """Size of a run's volumes as float32, in GB."""
    x, y, z = run.shape
    return 4e-9 * x * y * z * run.n_volumes


def fitting_processes(
    runs: Sequence[Run], nprocs: int, memory: float | None, *, simulating: bool = False
) -> int:
    """Limit the number of processes to what fits into the memory.

    Parameters
    ----------
    runs : sequence of Run
        The runs that will be read; the largest one counts.
    nprocs : int
        Processes that were asked for.
    memory : float or None
        GB of memory besides the model's; None for no limit.
    simulating : bool
        Whether baselines will be written, which hold more at once.

    Returns
    -------
    int
        At least 1, at most `nprocs`.

    Raises
    ------
    UsageError
        Not even one run fits.
    """
    if memory is None or not runs:
        return nprocs
    largest = max(runs, key=run_gigabytes)
    size = run_gigabytes(largest)
    needed = MAIN_GB + (SIMULATOR_RUNS if simulating else MAIN_RUNS) * size
    if memory < needed:
        raise UsageError(
            f"--mem {memory:g} GB is too little for {largest.bold}: {largest.n_volumes} volumes of "
            f"{'×'.join(map(str, largest.shape))} take about {needed:.1f} GB besides the model. "
            f"Give --mem {needed + 0.05:.1f}, or leave this run out with a filter."
        )
    fitting = max(1, int((memory - MAIN_GB) // (WORKER_GB + WORKER_RUNS * size)))
    if fitting < nprocs:
        log.info("%d processes instead of %d, to stay within %g GB", fitting, nprocs, memory)
    return min(nprocs, fitting)
