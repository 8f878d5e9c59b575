"""Limit the number of processes to what fits into the memory of a call."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from fmrisynth.bids.dataset import Run
from fmrisynth.errors import UsageError
from fmrisynth.runtime.workers import can_start_workers

__all__ = ["fitting_processes", "run_gigabytes"]

log = logging.getLogger(__name__)

# Peak memory, measured in multiples of a run's volumes as float32 (X·Y·Z·T·4 bytes): 3.2 to
# prepare a run, 5.3 for its first level, 4.6 for synthesis, which reads ahead and writes behind,
# 8.0 to 9.0 for the simulators; and the memory of a process before it reads anything.
WORKER_RUNS, WORKER_GB = 6.0, 0.4
MAIN_RUNS, SIMULATOR_RUNS, MAIN_GB = 6.0, 10.0, 1.0


def run_gigabytes(run: Run) -> float:
    """Return the size of a run's volumes as float32 (GB)."""
    x, y, z = run.shape
    return 4e-9 * x * y * z * run.n_volumes


def fitting_processes(
    runs: Sequence[Run], nprocs: int, memory: float | None, *, simulating: bool = False
) -> int:
    """Limit the number of processes to what fits into the memory.

    Parameters
    ----------
    runs : sequence of Run
        Runs to read; the largest one decides.
    nprocs : int
        Number of processes without the limit.
    memory : float or None
        Memory besides the model's (GB); None for no limit.
    simulating : bool
        Whether baselines are written, which need more memory in every process.

    Returns
    -------
    int
        At least 1, at most `nprocs`.

    Raises
    ------
    UsageError
        Not even one run fits.
    """
    if nprocs > 1 and not can_start_workers():
        log.warning("1 process instead of %d: this system has no semaphores (/dev/shm)", nprocs)
        nprocs = 1
    if memory is None or not runs:
        return nprocs
    largest = max(runs, key=run_gigabytes)
    size = run_gigabytes(largest)
    main, worker = (SIMULATOR_RUNS,) * 2 if simulating else (MAIN_RUNS, WORKER_RUNS)
    needed = MAIN_GB + main * size
    if memory < needed:
        raise UsageError(
            f"--mem {memory:g} GB is too little for {largest.bold}: {largest.n_volumes} volumes of "
            f"{'×'.join(map(str, largest.shape))} take about {needed:.1f} GB besides the model. "
            f"Give --mem {needed + 0.05:.1f}, or leave this run out with a filter."
        )
    fitting = max(1, int((memory - MAIN_GB) // (WORKER_GB + worker * size)))
    if fitting < nprocs:
        log.info("%d processes instead of %d, to stay within %g GB", fitting, nprocs, memory)
    return min(nprocs, fitting)
