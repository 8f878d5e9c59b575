"""End a call: remove its work files and report the runs that failed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from fmrisynth.errors import DataError
from fmrisynth.runtime.files import remove_leftovers
from fmrisynth.workflow.settings import Settings

__all__ = ["remove_work_files", "report_failures"]


def remove_work_files(settings: Settings) -> None:
    """Remove half-written files of dead processes, and caches that the user did not ask to keep."""
    remove_leftovers(settings.output_dir)
    remove_leftovers(settings.work_path)
    if settings.work_dir is None:
        shutil.rmtree(settings.work_path, ignore_errors=True)


def report_failures(problems: Mapping[Path, str], settings: Settings, done: str) -> None:
    """Raise an error about the runs that failed, after all others were finished.

    Parameters
    ----------
    problems : mapping of pathlib.Path to str
        File → reason.
    settings : Settings
        With `skip_bad_runs`, failed runs are accepted.
    done : str
        What happened to all other runs, for the message.

    Raises
    ------
    DataError
        Listing every failed run with its reason.
    """
    if problems and not settings.skip_bad_runs:
        listed = "\n".join(f"  {path}: {reason}" for path, reason in problems.items())
        raise DataError(
            f"{len(problems)} runs could not be used; all others were {done}:\n{listed}\n"
            "Repair them, leave them out with a filter, or pass --skip-bad-runs to accept this."
        )
