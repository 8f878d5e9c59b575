"""Read coarse series and effects of runs on common supervoxels.

Legend: B supervoxels common to all runs, T volumes.
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
    "supervoxel_effects",
    "supervoxel_samples",
    "supervoxel_sd",
    "whole_series",
]


def common_supervoxels(records: Sequence[RunRecord]) -> np.ndarray:
    """Find the supervoxels that every run has.

    Parameters
    ----------
    records : sequence of RunRecord
        Runs in one space.

    Returns
    -------
    ndarray of int of shape (B, 3)
        Places of the supervoxels, sorted.
    """
    counts = Counter(
        (int(x), int(y), int(z))
        for record in records
        for x, y, z in record.array("supervoxel_keys")
    )
    shared = sorted(key for key, count in counts.items() if count == len(records))
    return np.array(shared, dtype=np.int64).reshape(-1, 3)


def residual_series(record: RunRecord, keys: np.ndarray) -> np.ndarray:
    """Take the modelled response to the events out of the series of the supervoxels.

    Parameters
    ----------
    record : RunRecord
        Summary of a run.
    keys : ndarray of int of shape (B, 3)
        Supervoxels that are compared.

    Returns
    -------
    ndarray of shape (B, T)
        Drift-free percent signal change, less its fit by the regressors; 0
        where the run does not have the supervoxel.
    """
    own, series, regressors = record.arrays("supervoxel_keys", "supervoxel_series", "regressors")
    series = _select(own, series, keys)
    basis, _ = np.linalg.qr(regressors)
    return series - (series @ basis) @ basis.T


def whole_series(record: RunRecord, keys: np.ndarray) -> np.ndarray:
    """Read the series of the supervoxels with their response: (B, T), percent, 0 where none."""
    own, series = record.arrays("supervoxel_keys", "supervoxel_series")
    return _select(own, series, keys)


def supervoxel_sd(record: RunRecord, keys: np.ndarray) -> np.ndarray:
    """Read the mean temporal SD of the voxels in each supervoxel: (B,), percent, 0 where none."""
    own, sd = record.arrays("supervoxel_keys", "supervoxel_sd")
    return _select(own, sd[:, None], keys)[:, 0]


def supervoxel_effects(record: RunRecord, keys: np.ndarray) -> np.ndarray:
    """Read the effects of a run on the supervoxels: (K, B), percent signal change, 0 where none."""
    own, effects = record.arrays("supervoxel_keys", "supervoxel_effects")
    return _select(own, effects.T, keys).T


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
    keys : ndarray of int of shape (B, 3)
        Blocks that all runs have.

    Returns
    -------
    Samples
    """
    place = {pair: index for index, pair in enumerate(trial_types)}
    known = [[place.get((r.run.task, name)) for name in r.trial_types] for r in records]
    labels = [k for own in known for k in own if k is not None]
    features = np.empty((len(labels), len(keys)), dtype=np.float32)
    participants: list[str] = []
    for record, own in zip(records, known, strict=True):
        there = [k is not None for k in own]
        start = len(participants)
        participants += [record.run.participant] * sum(there)
        features[start : len(participants)] = supervoxel_effects(record, keys)[there]
    return Samples(features, np.array(labels, dtype=int), np.array(participants, dtype=str))


def _select(places: np.ndarray, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Select rows of supervoxels, (B, …), from those of a run, 0 for those it does not have."""
    # One number per place: places are a few hundred at most on each side of the origin.
    own, wanted = _codes(places), _codes(keys)
    order = np.argsort(own)
    rows = order[np.minimum(np.searchsorted(own, wanted, sorter=order), len(own) - 1)]
    there = own[rows] == wanted
    return np.where(there[:, None], values[rows], np.float32(0.0))


def _codes(places: np.ndarray) -> np.ndarray:
    shifted = places.astype(np.int64) + 2**20
    return (shifted[:, 0] << 42) | (shifted[:, 1] << 21) | shifted[:, 2]
