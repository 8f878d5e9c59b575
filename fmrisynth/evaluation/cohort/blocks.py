"""Coarse time series of runs on common blocks, with the modelled responses taken out.

Array legend: ``B`` blocks common to all runs, ``T`` volumes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from fmrisynth.evaluation.cohort.samples import Samples
from fmrisynth.evaluation.runs.records import RunRecord

__all__ = ["block_effects", "block_samples", "common_blocks", "residual_series", "rows_of"]


def common_blocks(records: Sequence[RunRecord]) -> np.ndarray:
    """Find the blocks that every run has.

    Parameters
    ----------
    records : sequence of RunRecord
        Runs in one space.

    Returns
    -------
    ndarray of int, shape (B, 3)
        Places of the blocks, sorted.
    """
    counts = Counter(
        (int(x), int(y), int(z)) for record in records for x, y, z in record.array("block_keys")
    )
    shared = sorted(key for key, count in counts.items() if count == len(records))
    return np.array(shared, dtype=np.int64).reshape(-1, 3)


def rows_of(record: RunRecord, keys: np.ndarray) -> np.ndarray:
    """Find blocks among those of a run.

    Parameters
    ----------
    record : RunRecord
        Summary of a run.
    keys : ndarray of int, shape (B, 3)
        Blocks that the run has.

    Returns
    -------
    ndarray of int, shape (B,)
        Row of each block in the run's ``block_`` arrays.
    """
    # One number per place: places are a few hundred at most on each side of the origin.
    own, wanted = (_codes(places) for places in (record.array("block_keys"), keys))
    order = np.argsort(own)
    return order[np.searchsorted(own, wanted, sorter=order)]


def residual_series(record: RunRecord, keys: np.ndarray) -> np.ndarray:
    """Series of the blocks without the modelled response to the events.

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
    series = record.array("block_series")[rows_of(record, keys)]
    basis, _ = np.linalg.qr(record.array("regressors"))
    return series - (series @ basis) @ basis.T


def block_effects(record: RunRecord, keys: np.ndarray) -> np.ndarray:
    """Effects of a run on the blocks: (K, B), percent signal change."""
    return record.array("block_effects")[:, rows_of(record, keys)]


def block_samples(
    records: Sequence[RunRecord], trial_types: Sequence[tuple[str, str]], keys: np.ndarray
) -> Samples:
    """Effect maps of single runs on the blocks, labelled by trial type.

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
    rows, labels, people = [], [], []
    for record in records:
        for trial_type, effect in zip(record.trial_types, block_effects(record, keys), strict=True):
            if (record.run.task, trial_type) in place:
                rows.append(effect)
                labels.append(place[record.run.task, trial_type])
                people.append(record.run.participant)
    return Samples(
        np.array(rows, dtype=np.float64).reshape(-1, len(keys)),
        np.array(labels, dtype=int),
        np.array(people, dtype=str),
    )


def _codes(places: np.ndarray) -> np.ndarray:
    shifted = places.astype(np.int64) + 2**20
    return (shifted[:, 0] << 42) | (shifted[:, 1] << 21) | shifted[:, 2]
