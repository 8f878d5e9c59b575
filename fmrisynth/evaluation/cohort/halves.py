"""Split the runs of a source into two halves that repeat each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from fmrisynth.evaluation.cohort.maps import ordered_runs
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["split_halves"]


def split_halves(records: Sequence[RunRecord]) -> tuple[list[RunRecord], list[RunRecord]]:
    """Split every participant's runs of each task in two; the odd one is left out.

    Parameters
    ----------
    records : sequence of RunRecord
        Runs of one source.

    Returns
    -------
    first, second : list of RunRecord
        As many runs of the same participants and tasks in each.
    """
    groups = defaultdict(list)
    for record in ordered_runs(records):
        groups[record.run.participant, record.run.task].append(record)
    first, second = [], []
    for runs in groups.values():
        size = len(runs) // 2
        first += runs[0 : 2 * size : 2]
        second += runs[1 : 2 * size : 2]
    return first, second
