"""Dice overlap of thresholded maps."""

from __future__ import annotations

import numpy as np

from fmrisynth.evaluation.maps import MapTable, group_mean, merge
from fmrisynth.evaluation.resampling import (
    NAN,
    Figure,
    bootstrap_counts,
    interval,
    matched_draws,
)

__all__ = ["compare_overlap", "dice"]


def dice(synthetic: np.ndarray, real: np.ndarray, share: float = 0.05) -> np.ndarray:
    """Overlap of the strongest voxels of each synthetic and real map.

    Parameters
    ----------
    synthetic, real : ndarray, shape (n_conditions, n_voxels)
        Group maps.
    share : float
        Share of the voxels that count as active, the same in every map, so
        that the figure does not depend on the size of effects.

    Returns
    -------
    ndarray, shape (n_conditions,)
        ``2 |A ∩ B| / (|A| + |B|)``; NaN for missing maps. Chance is ``share``.
    """
    found = np.full(len(real), np.nan)
    for c, (first, second) in enumerate(zip(synthetic, real, strict=True)):
        if np.isfinite(first).all() and np.isfinite(second).all():
            size = max(1, round(share * len(first)))
            both = np.intersect1d(
                np.argpartition(first, -size)[-size:], np.argpartition(second, -size)[-size:]
            )
            found[c] = len(both) / size
    return found


def compare_overlap(
    made: MapTable,
    real: MapTable,
    training: MapTable | None,
    membership: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, Figure]:
    """Dice of a generator's group maps with interval, ceiling and floor.

    Parameters
    ----------
    made, real : MapTable
        Generator and real held-out participants; made may have fewer.
    training : MapTable or None
        Real training participants, for the ceiling.
    membership : ndarray, shape (C, K)
        Which trial types make up each condition.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    dict
        ``dice``: mean over conditions; its floor is that of shuffled conditions.
    """
    # Ranks need voxels, which coordinates do not have: fewer resamples, in float32.
    rows = [real.participants.index(person) for person in made.participants]
    synthetic = merge(made.voxel_maps(), membership)
    truth = merge(real.voxel_maps(), membership)[rows]
    others = merge(training.voxel_maps(), membership) if training is not None else truth[:0]
    group_synthetic, group_real = group_mean(synthetic), group_mean(truth)
    value = _mean(dice(group_synthetic, group_real))
    samples = [
        _mean(dice(group_mean(synthetic, counts), group_mean(truth, counts)))
        for counts in bootstrap_counts(len(rows), rng, 60)
    ]
    ceilings = [
        _mean(dice(group_mean(others[b]), group_mean(truth[a])))
        for a, b in matched_draws(len(truth), len(others), rng, 20)
    ]
    n = len(group_real)
    floors = [_mean(dice(np.roll(group_synthetic, k, axis=0), group_real)) for k in range(1, n)]
    limits = interval(value, np.array(samples), (0.0, 1.0))
    return {"dice": Figure(value, *limits, _mean(np.array(ceilings)), _mean(np.array(floors)))}


def _mean(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else NAN
