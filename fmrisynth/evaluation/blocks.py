"""Coarse time series of runs on common blocks, with the modelled responses taken out.

Array legend: ``B`` blocks common to all runs, ``T`` volumes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from fmrisynth.evaluation.decoding import Samples
from fmrisynth.evaluation.records import Grid, RunRecord, coarse_blocks

__all__ = ["block_samples", "common_blocks", "residual_series"]


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
    place = {tuple(key): row for row, key in enumerate(record.array("block_keys").tolist())}
    series = record.array("block_series")[[place[tuple(key)] for key in keys.tolist()]]
    basis, _ = np.linalg.qr(record.array("regressors"))
    return series - (series @ basis) @ basis.T


def block_samples(
    records: Sequence[RunRecord],
    trial_types: Sequence[tuple[str, str]],
    keys: np.ndarray,
    grid: Grid,
) -> Samples:
    """Effect maps of single runs on the blocks, labelled by trial type.

    Parameters
    ----------
    records : sequence of RunRecord
        Runs of one source.
    trial_types : sequence of (str, str)
        Task and trial type of each label.
    keys : ndarray of int, shape (B, 3)
        Blocks.
    grid : Grid
        Grid of the records' maps.

    Returns
    -------
    Samples
    """
    place = {pair: index for index, pair in enumerate(trial_types)}
    rows, labels, people = [], [], []
    for record in records:
        own, average = coarse_blocks(record.array("mask"), grid.affine)
        where = {tuple(key): row for row, key in enumerate(own.tolist())}
        effects = average @ record.array("effects").T
        # On a resampled grid a block at the edge may be missing: no effect there.
        effects = np.concatenate([effects, np.zeros((1, effects.shape[1]), effects.dtype)])
        chosen = effects[[where.get(tuple(key), -1) for key in keys.tolist()]]
        for trial_type, effect in zip(record.trial_types, chosen.T, strict=True):
            if (record.run.task, trial_type) in place:
                rows.append(effect)
                labels.append(place[record.run.task, trial_type])
                people.append(record.run.participant)
    return Samples(
        np.array(rows, dtype=np.float64).reshape(-1, len(keys)),
        np.array(labels, dtype=int),
        np.array(people, dtype=str),
    )
