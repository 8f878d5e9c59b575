"""Dice overlap of thresholded maps: of effects, and of second-level z-maps.

Array legend: ``P`` participants, ``C`` conditions, ``V`` voxels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fmrisynth.evaluation.cohort.conditions import Level
from fmrisynth.evaluation.cohort.maps import MapTable
from fmrisynth.evaluation.measures.resampling import (
    NAN,
    Figure,
    bootstrap_counts,
    finite_mean,
    interval,
    matched_draws,
)
from fmrisynth.evaluation.measures.second_level import one_sample_t, t_limit

__all__ = ["compare_overlap", "compare_overlap_halves", "dice", "significant", "strongest"]

SHARE = 0.05
"""Share of the voxels that count as active in a map of effects, the same in every map."""

_N_BOOTSTRAP, _N_DRAWS = 60, 20  # ranks need voxels, which coordinates do not have

Reader = Callable[[int], np.ndarray]
Counts = np.ndarray | None
Threshold = Callable[[np.ndarray, Counts], np.ndarray | None]


def strongest(maps: np.ndarray, counts: Counts = None) -> np.ndarray | None:
    """Find the voxels with the largest mean effect.

    Parameters
    ----------
    maps : ndarray, shape (P, V)
        Participants' maps of one condition; NaN rows are missing.
    counts : ndarray of int, shape (P,), optional
        How often each participant is drawn in a bootstrap sample.

    Returns
    -------
    ndarray of bool, shape (V,), or None
        The same number of voxels in every map, so that the figure does not
        depend on the size of effects; None when nobody has the condition.
    """
    usable, counts = _usable(maps, counts)
    if not counts.sum():
        return None
    mean = (counts.astype(np.float32) / counts.sum()) @ usable
    size = max(1, round(SHARE * len(mean)))
    active = np.zeros(len(mean), dtype=bool)
    active[np.argpartition(mean, -size)[-size:]] = True
    return active


def significant(maps: np.ndarray, counts: Counts = None) -> np.ndarray | None:
    """Find the voxels whose mean effect over participants is significant (p < .01, uncorrected).

    Parameters
    ----------
    maps, counts
        As for `strongest`.

    Returns
    -------
    ndarray of bool, shape (V,), or None
        Those of the second-level z-map above 2.33; None with fewer than two participants.
    """
    usable, counts = _usable(maps, counts)
    t = one_sample_t(usable, counts)
    return t > t_limit(int(counts.sum())) if np.isfinite(t).all() else None


def dice(first: np.ndarray | None, second: np.ndarray | None) -> float:
    """Overlap of two sets of voxels.

    Parameters
    ----------
    first, second : ndarray of bool, shape (V,), or None
        Active voxels of a generator's and of the real map.

    Returns
    -------
    float
        ``2 |A ∩ B| / (|A| + |B|)``; NaN where the real map has no active voxel.
    """
    if first is None or second is None or not second.any():
        return NAN
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def compare_overlap(
    made: MapTable,
    real: MapTable,
    training: MapTable | None,
    level: Level,
    rng: np.random.Generator,
) -> dict[str, Figure]:
    """Dice of a generator's group maps with interval, ceiling and floor.

    Parameters
    ----------
    made, real : MapTable
        Generator and real held-out participants; made may have fewer.
    training : MapTable or None
        Real training participants, for the ceiling.
    level : Level
        The conditions.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    dict
        ``dice`` (strongest 5 % of the voxels of the mean effects) and
        ``dice_z`` (second-level z-maps, p < .01 uncorrected): means over conditions;
        their floor is that of conditions taken for each other.
    """
    rows = [real.participants.index(person) for person in made.participants]
    return _compare(
        lambda c: level.voxels(made, c),
        lambda c: level.voxels(real, c)[rows],
        (lambda c: level.voxels(training, c)) if training is not None else None,
        level,
        rng,
    )


def compare_overlap_halves(
    real: MapTable, training: MapTable | None, level: Level, rng: np.random.Generator
) -> dict[str, Figure]:
    """Dice of real data as its own generator: one half of the runs with the other.

    Parameters
    ----------
    real, training, level, rng
        As for `compare_overlap`.

    Returns
    -------
    dict
        As `compare_overlap`; empty without two runs of each condition.
    """
    if not real.has_halves:
        return {}
    half = 0 if training is not None and training.has_halves else None
    return _compare(
        lambda c: level.voxels(real, c, 0),
        lambda c: level.voxels(real, c, 1),
        (lambda c: level.voxels(training, c, half)) if training is not None else None,
        level,
        rng,
    )


def _compare(
    made: Reader, real: Reader, training: Reader | None, level: Level, rng: np.random.Generator
) -> dict[str, Figure]:
    """Go through the conditions one by one; every one sees the same draws of participants."""
    n_real = len(real(0))
    n_training = len(training(0)) if training is not None else 0
    counts = bootstrap_counts(n_real, rng, _N_BOOTSTRAP)
    pairs = matched_draws(n_real, n_training, rng, _N_DRAWS)
    thresholds: dict[str, Threshold] = {"dice": strongest, "dice_z": significant}
    active: dict[str, list[tuple[np.ndarray | None, np.ndarray | None]]] = {}
    samples: dict[str, list[list[float]]] = {name: [] for name in thresholds}
    ceilings: dict[str, list[float]] = {name: [] for name in thresholds}
    for c in range(len(level.names)):
        ours, theirs = made(c), real(c)
        others = training(c) if training is not None else theirs[:0]
        for name, find in thresholds.items():
            active.setdefault(name, []).append((find(ours, None), find(theirs, None)))
            samples[name].append([dice(find(ours, n), find(theirs, n)) for n in counts])
            ceilings[name] += [dice(find(others[b], None), find(theirs[a], None)) for a, b in pairs]
    figures = {}
    for name, found in active.items():
        value = finite_mean([dice(*both) for both in found])
        floor = finite_mean(
            [
                dice(found[k][0], found[c][1])
                for k in range(len(found))
                for c in range(len(found))
                if k != c
            ]
        )
        each = [finite_mean(column) for column in zip(*samples[name], strict=True)]
        limits = interval(value, np.array(each), (0.0, 1.0))
        figures[name] = Figure(value, *limits, finite_mean(ceilings[name]), floor)
    return figures


def _usable(maps: np.ndarray, counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    present = np.isfinite(maps[:, 0])
    weights = np.ones(len(maps), dtype=int) if counts is None else counts
    return maps[present], weights[present]
