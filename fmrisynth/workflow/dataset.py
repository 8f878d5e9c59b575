"""Find the dataset of a call, choose its runs, and end the call."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fmrisynth.bids.dataset import Dataset, Run, find_runs
from fmrisynth.bids.locations import check_output_dir, check_work_dir
from fmrisynth.bids.selection import require_labels
from fmrisynth.errors import DataError
from fmrisynth.runtime.files import remove_leftovers
from fmrisynth.workflow.settings import Settings

__all__ = ["_clean", "_people", "_report_failures", "find_dataset", "select_runs"]

log = logging.getLogger(__name__)


def find_dataset(settings: Settings) -> Dataset:
    """Find the runs of the dataset: all participants, since a model learns from all."""
    check_output_dir(settings.bids_dir, settings.output_dir, settings.derivatives.values())
    check_work_dir(settings.bids_dir, settings.work_path)
    dataset = find_runs(
        settings.bids_dir,
        derivatives=settings.derivatives,
        selection=replace(settings.selection, participants=()),
        database_dir=settings.database_dir,
    )
    log.info("found %d runs of %d participants", len(dataset.runs), len(_people(dataset.runs)))
    return dataset


def _people(runs: Sequence[Run]) -> list[str]:
    """Participants of some runs, sorted."""
    return sorted({run.participant for run in runs})


def select_runs(dataset: Dataset, participants: tuple[str, ...]) -> tuple[Run, ...]:
    """Keep the participants asked for; an unknown one is an error that lists those there are."""
    if not participants:
        return dataset.runs
    require_labels("sub", participants, _people(dataset.runs), dataset.root)
    return tuple(run for run in dataset.runs if run.participant in participants)


def _clean(settings: Settings) -> None:
    """Remove what a finished run no longer needs."""
    remove_leftovers(settings.output_dir)
    remove_leftovers(settings.work_path)
    if settings.work_dir is None:
        shutil.rmtree(settings.work_path, ignore_errors=True)


def _report_failures(problems: Mapping[Path, str], settings: Settings, done: str) -> None:
    """Make bad runs known: all else is done, the exit code says that something is missing."""
    if problems and not settings.skip_bad_runs:
        listed = "\n".join(f"  {path}: {reason}" for path, reason in problems.items())
        raise DataError(
            f"{len(problems)} runs could not be used; all others were {done}:\n{listed}\n"
            "Repair them, leave them out with a filter, or pass --skip-bad-runs to accept this."
        )
