"""End a call: remove its work files, report the runs that failed, say what to do next."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from fmrisynth.errors import DataError
from fmrisynth.runtime.files import remove_leftovers
from fmrisynth.workflow.settings import Settings

__all__ = ["next_steps", "remove_work_files", "report_failures"]


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


def next_steps(settings: Settings, level: str) -> str:
    """Say where the results of a level are, and which call comes next.

    Parameters
    ----------
    settings : Settings
        Of the call that has ended.
    level : {"participant", "group"}
        Its level.
    """
    out = settings.output_dir
    if level == "group":
        return (
            f"The report is {out / 'group.html'}, its figures are in "
            f"{out / 'group' / 'metrics.tsv'}. Read the verdict before using the runs."
        )
    if settings.train_only:
        return (
            f"The model is in {settings.model_path}. Write synthetic runs with it:\n"
            f"  {_call(settings, 'participant')}"
        )
    return (
        f"The synthetic runs are in {out}. Compare them with held-out real runs:\n"
        f"  {_call(settings, 'group')}"
    )


def _call(settings: Settings, level: str) -> str:
    """Write a call for the same dataset and the same model."""
    named = [f"{name}={path}" for name, path in settings.derivatives.items()]
    options: list[tuple[str, Sequence[object]]] = [
        ("--model", [settings.model_dir] if settings.model_dir else []),
        ("--derivatives", named),
        ("--session-id", settings.sessions),
        ("--task-id", settings.tasks),
        ("--space", [settings.space] if settings.space else []),
        ("--work-dir", [settings.work_dir] if settings.work_dir else []),
    ]
    words = ["fmrisynth", settings.bids_dir, settings.output_dir, level]
    words += [word for name, values in options if values for word in (name, *values)]
    words += ["--use-raw"] if settings.use_raw else []
    return shlex.join(map(str, words))
