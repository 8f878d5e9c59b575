"""Start worker processes that end with their parent, however that ends."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread

__all__ = ["can_start_workers", "worker_pool"]


def can_start_workers() -> bool:
    """Say whether this system lets processes talk to each other.

    Their semaphores live in /dev/shm, which some containers and sandboxes lack.
    """
    try:
        get_context("spawn").Semaphore(1)
    except (OSError, ImportError):
        return False
    return True


def worker_pool(nprocs: int) -> ProcessPoolExecutor:
    """Return a pool of fresh interpreters that do not outlive this process.

    They are spawned, since a fork of a process with threads (BLAS, torch) can hang.
    The workers of a plain pool would wait for work for ever when their parent is
    killed, and keep their memory.

    Parameters
    ----------
    nprocs : int
        Largest number of workers.
    """
    return ProcessPoolExecutor(
        nprocs, mp_context=get_context("spawn"), initializer=_end_with_the_parent
    )


def _end_with_the_parent() -> None:
    """Watch the parent in a thread of the worker."""
    Thread(target=_watch, name="parent-watch", daemon=True).start()


def _watch() -> None:
    """Exit this worker when its parent ends."""
    parent = parent_process()
    if parent is not None:
        parent.join()  # returns when the parent's end of a pipe is closed, by a kill too
        os._exit(1)
