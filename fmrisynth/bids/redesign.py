"""Replace the events of runs by those of a new design."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fmrisynth.bids.dataset import Run
from fmrisynth.bids.events import read_events
from fmrisynth.bids.selection import ANY_TASK, require_labels
from fmrisynth.errors import NoInputError, UsageError

__all__ = ["with_events"]


def with_events(runs: Sequence[Run], tables: Mapping[str, Path], dataset: Path) -> tuple[Run, ...]:
    """Replace the events of the runs of some tasks.

    Parameters
    ----------
    runs : sequence of Run
        Runs to synthesise.
    tables : mapping of str to Path
        Task → events.tsv; `fmrisynth.bids.selection.ANY_TASK` where there is only one.
    dataset : Path
        Root of the dataset, for messages.

    Returns
    -------
    tuple of Run
        In the order of `runs`; runs of other tasks keep their own events.

    Raises
    ------
    NoInputError
        A table does not exist.
    NoMatchError
        There is no such task; the message lists the tasks of the runs.
    UsageError
        The task is not named, and the runs have several.
    DataError
        A table cannot be used, or has events that begin after a run has ended.
    """
    tasks = sorted({run.task for run in runs})
    named = dict(tables)
    if ANY_TASK in named:
        if len(tasks) > 1:
            raise UsageError(
                f"--events {named[ANY_TASK]}: the runs have the tasks {', '.join(tasks)}; say "
                f"whose events these are, as --events {tasks[0]}={named[ANY_TASK]}, or choose one "
                "with --task-id."
            )
        named = {tasks[0]: named[ANY_TASK]}
    require_labels("task", tuple(named), tasks, dataset)
    for path in named.values():
        if not path.exists():
            raise NoInputError(f"--events {path}: there is no such file.")
    for task, path in named.items():
        shortest = min((run for run in runs if run.task == task), key=lambda run: run.duration)
        read_events(path, duration=shortest.duration, most_beyond=0)
    return tuple(
        replace(run, events=named[run.task].resolve()) if run.task in named else run for run in runs
    )
