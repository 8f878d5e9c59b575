"""Find the runs of a call."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from fmrisynth.bids.dataset import Dataset, Run, find_runs
from fmrisynth.bids.locations import check_output_dir, check_work_dir
from fmrisynth.bids.selection import require_labels
from fmrisynth.workflow.settings import Settings

__all__ = ["find_dataset", "participants_of", "select_runs"]

log = logging.getLogger(__name__)


def find_dataset(settings: Settings) -> Dataset:
    """Find the runs of all participants, since a model learns from all of them.

    Raises
    ------
    FmrisynthError
        The dataset cannot be used, no run is left by the filters, or an output would lie in
        the input.
    """
    check_output_dir(settings.bids_dir, settings.output_dir, settings.derivatives.values())
    check_work_dir(settings.bids_dir, settings.work_path)
    dataset = find_runs(
        settings.bids_dir,
        derivatives=settings.derivatives,
        selection=replace(settings.selection, participants=()),
        database_dir=settings.database_dir,
    )
    n_participants = len(participants_of(dataset.runs))
    log.info("found %d runs of %d participants", len(dataset.runs), n_participants)
    return dataset


def participants_of(runs: Iterable[Run]) -> list[str]:
    """Return the sorted participant labels of runs."""
    return sorted({run.participant for run in runs})


def select_runs(dataset: Dataset, participants: tuple[str, ...]) -> tuple[Run, ...]:
    """Return the runs of some participants; of all if none is named.

    Raises
    ------
    NoMatchError
        A participant has no run; the message lists those who have.
    """
    if not participants:
        return dataset.runs
    require_labels("sub", participants, participants_of(dataset.runs), dataset.root)
    return tuple(run for run in dataset.runs if run.participant in participants)
