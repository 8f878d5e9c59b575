"""Limit the threads of this process and of its workers."""

from __future__ import annotations

import os

import torch
from threadpoolctl import threadpool_limits

__all__ = ["THREAD_VARIABLES", "limit_threads"]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def limit_threads(threads: int, worker_threads: int) -> None:
    """Limit the threads of this process, and of the processes that it will start.

    Parameters
    ----------
    threads : int
        Threads of torch and of the BLAS libraries in this process.
    worker_threads : int
        Threads of each process that reads runs.
    """
    torch.set_num_threads(threads)
    threadpool_limits(threads)
    for variable in THREAD_VARIABLES:  # read by libraries when a new process loads them
        os.environ[variable] = str(worker_threads)
