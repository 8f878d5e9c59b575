"""Start worker processes that end with their parent, however that ends."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, Protocol, TypeVar

__all__ = ["Map", "can_start_workers", "spread", "worker_pool"]

A = TypeVar("A")
B = TypeVar("B")


class Map(Protocol):
    """Apply a function to items, in order, as Python's own ``map`` does."""

    def __call__(self, function: Callable[[A], B], items: Iterable[A], /) -> Iterator[B]:
        """Return what the function makes of each item."""
        ...


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


@contextmanager
def spread(nprocs: int) -> Iterator[Map]:
    """Give a `map` whose work is spread over processes, or done in this one where it is alone.

    Parameters
    ----------
    nprocs : int
        Largest number of processes.
    """
    if nprocs <= 1:
        yield map
        return
    with worker_pool(nprocs) as pool:

        def over_processes(function: Callable[[A], B], items: Iterable[A], /) -> Iterator[B]:
            # pickled once, and by pickle itself: pools send the tensors that a function holds
            # through shared memory, of which containers have little
            return pool.map(partial(_call, pickle.dumps(function)), items)

        yield over_processes


def _call(pickled: bytes, item: Any) -> Any:
    """Call a function that another process has pickled."""
    return _loaded(pickled)(item)


@lru_cache(maxsize=1)
def _loaded(pickled: bytes) -> Callable[[Any], Any]:
    function: Callable[[Any], Any] = pickle.loads(pickled)
    return function


def _end_with_the_parent() -> None:
    """Watch the parent in a thread of the worker."""
    Thread(target=_watch, name="parent-watch", daemon=True).start()


def _watch() -> None:
    """Exit this worker when its parent ends."""
    parent = parent_process()
    if parent is not None:
        parent.join()  # returns when the parent's end of a pipe is closed, by a kill too
        os._exit(1)
