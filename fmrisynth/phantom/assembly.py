"""Process participants in parallel, and keep a folder complete or absent."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fmrisynth.errors import FmrisynthError, InputOutputError, OutputError, UsageError
from fmrisynth.runtime.progress import track
from fmrisynth.runtime.workers import worker_pool

__all__ = ["complete_or_absent", "run_in_order"]

Result = TypeVar("Result")


def run_in_order(
    function: Callable[..., Result],
    arguments: Sequence[tuple[Any, ...]],
    *,
    nprocs: int,
    progress: bool,
) -> list[Result]:
    """Call `function` once per participant, in processes, and return the results in order.

    Parameters
    ----------
    function : callable
        Function of a module, so that another process can import it.
    arguments : sequence of tuple
        Arguments of each call.
    nprocs : int
        Processes at most; 1 calls in this process.
    progress : bool
        Show a progress bar.

    Raises
    ------
    UsageError
        `nprocs` is below 1.
    FmrisynthError
        A process was killed.
    """
    if nprocs < 1:
        raise UsageError(f"nprocs is {nprocs}; expected 1 or more.")
    results: dict[int, Result] = {}
    calls = _calls(function, arguments, nprocs)
    for index, result in track(
        calls, total=len(arguments), desc="Participants", unit="participant", disable=not progress
    ):
        results[index] = result
    return [results[index] for index in range(len(arguments))]


def _calls(
    function: Callable[..., Result], arguments: Sequence[tuple[Any, ...]], nprocs: int
) -> Iterator[tuple[int, Result]]:
    """Yield (index, result) of each call as it is finished."""
    if nprocs == 1 or len(arguments) == 1:
        for index, values in enumerate(arguments):
            yield index, function(*values)
        return
    with worker_pool(min(nprocs, len(arguments))) as pool:
        futures = {pool.submit(function, *values): i for i, values in enumerate(arguments)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise FmrisynthError(
                "a process of the phantom was killed, most likely for want of memory. Use fewer "
                f"than {nprocs} processes."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def complete_or_absent(out: Path) -> Iterator[Path]:
    """Provide a temporary folder beside `out` that takes its name when the block has succeeded."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(
            f"{out} exists and is not an empty folder; expected a new or empty one for the "
            "cohort. Choose another name or remove it."
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise OutputError(f"{out} cannot be created: {error}. Choose a writable folder.") from error
    try:
        yield folder
        # mkdtemp makes private folders; the cohort gets the rights that any new folder has.
        probe = folder / "probe"
        probe.mkdir()
        folder.chmod(probe.stat().st_mode)
        probe.rmdir()
        os.replace(folder, out)
    except OSError as error:
        raise InputOutputError(f"writing the cohort {out} failed: {error}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
