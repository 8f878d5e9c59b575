"""Coarse time series of runs on common supervoxels, with the modelled responses taken out.

Array legend: ``B`` supervoxels common to all runs, ``T`` volumes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from fmrisynth.evaluation.cohort.samples import Samples
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = [
    "common_supervoxels",
    "residual_series",
    "rows_of",
    "supervoxel_effects",
    "supervoxel_samples",
]


def common_supervoxels(records: Sequence[RunRecord]) -> np.ndarray:
    """Find the supervoxels that every run has.

    Parameters
    ----------
    records : sequence of RunRecord
        Runs in one space.

    Returns
    -------
    ndarray of int, shape (B, 3)
        Places of the supervoxels, sorted.
    """
    counts = Counter(
        (int(x), int(y), int(z))
        for record in records
        for x, y, z in record.array("supervoxel_keys")
    )
    shared = sorted(key for key, count in counts.items() if count == len(records))
    return np.array(shared, dtype=np.int64).reshape(-1, 3)


def rows_of(record: RunRecord, keys: np.ndarray) -> np.ndarray:
    """Find supervoxels among those of a run.

    Parameters
    ----------
    record : RunRecord
        Summary of a run.
    keys : ndarray of int, shape (B, 3)
        Blocks that the run has.

    Returns
    -------
    ndarray of int, shape (B,)
        Row of each supervoxel in the run's ``supervoxel_`` arrays.
    """
    # One number per place: places are a few hundred at most on each side of the origin.
    own, wanted = (_codes(places) for places in (record.array("supervoxel_keys"), keys))
    order = np.argsort(own)
    return order[np.searchsorted(own, wanted, sorter=order)]


def residual_series(record: RunRecord, keys: np.ndarray) -> np.ndarray:
    """Series of the supervoxels without the modelled response to the events.

    Parameters
    ----------
    record : RunRecord
        Summary of a run.
    keys : ndarray of int, shape (B, 3)
        Blocks that the run has.

    Returns
    -------
    ndarray, shape (B, T)
        Drift-free percent signal change, less its fit by the regressors.
    """
    series = record.array("supervoxel_series")[rows_of(record, keys)]
    basis, _ = np.linalg.qr(record.array("regressors"))
    return series - (series @ basis) @ basis.T


def supervoxel_effects(record: RunRecord, keys: np.ndarray) -> np.ndarray:
    """Effects of a run on the supervoxels: (K, B), percent signal change."""
    return record.array("supervoxel_effects")[:, rows_of(record, keys)]


def supervoxel_samples(
    records: Sequence[RunRecord], trial_types: Sequence[tuple[str, str]], keys: np.ndarray
) -> Samples:
    """Effect maps of single runs on the supervoxels, labelled by trial type.

    Parameters
    ----------
    records : sequence of RunRecord
        Runs of one source.
    trial_types : sequence of (str, str)
        Task and trial type of each label.
    keys : ndarray of int, shape (B, 3)
        Blocks that all runs have.

    Returns
    -------
    Samples
    """
    place = {pair: index for index, pair in enumerate(trial_types)}
    rows, labels, participants = [], [], []
    for record in records:
        for trial_type, effect in zip(
            record.trial_types, supervoxel_effects(record, keys), strict=True
        ):
            if (record.run.task, trial_type) in place:
                rows.append(effect)
                labels.append(place[record.run.task, trial_type])
                participants.append(record.run.participant)
    return Samples(
        np.array(rows, dtype=np.float64).reshape(-1, len(keys)),
        np.array(labels, dtype=int),
        np.array(participants, dtype=str),
    )


def _codes(places: np.ndarray) -> np.ndarray:
    shifted = places.astype(np.int64) + 2**20
    return (shifted[:, 0] << 42) | (shifted[:, 1] << 21) | shifted[:, 2]
