"""Compare thresholded maps by their Dice overlap: effects, and second-level z-maps.

Legend: P participants, C conditions, V voxels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fmrisynth.evaluation.cohort.roles import REAL
from fmrisynth.evaluation.measures.resampling import (
    NAN,
    finite_mean,
    interval,
    matched_draws,
)
from fmrisynth.evaluation.measures.second_level import one_sample_t, t_limit
from fmrisynth.evaluation.metrics.comparison import Comparison
from fmrisynth.evaluation.metrics.estimate import Estimate, Estimates
from fmrisynth.evaluation.metrics.metric import PROPORTION, Family, Metric

__all__ = ["FAMILY", "METRICS", "compare", "compare_real", "dice", "significant", "strongest"]

_OTHERS = "the same between as many real training and real held-out participants"
_OTHER_MAPS = "every other condition's map"

METRICS = (
    Metric(
        "dice",
        section="maps",
        bounds=PROPORTION,
        label="Overlap of active voxels (Dice)",
        what="Dice overlap of the strongest 5 % of the voxels",
        ceiling=_OTHERS,
        floor=_OTHER_MAPS,
    ),
    Metric(
        "dice_z",
        section="maps",
        bounds=PROPORTION,
        label="Overlap of significant voxels (Dice)",
        what="Dice overlap of second-level z-maps, p < .01 uncorrected",
        ceiling=_OTHERS,
        floor=_OTHER_MAPS,
    ),
)
"""What this family computes."""

SHARE = 0.05
"""Share of the voxels that count as active in a map of effects, the same in every map."""

_N_BOOTSTRAP, _N_DRAWS = 60, 20  # ranks need voxels, which coordinates do not have

Reader = Callable[[int], np.ndarray]
Counts = np.ndarray | None
Voxels = np.ndarray | None
Threshold = Callable[[np.ndarray, Counts], Voxels]


def strongest(maps: np.ndarray, counts: Counts = None) -> np.ndarray | None:
    """Find the voxels with the largest mean effect.

    Parameters
    ----------
    maps : ndarray of shape (P, V)
        Participants' maps of one condition; NaN rows are missing.
    counts : ndarray of int of shape (P,), optional
        How often each participant is drawn in a bootstrap sample.

    Returns
    -------
    ndarray of bool of shape (V,), or None
        The same number of voxels in every map, so that the overlap does
        not depend on the size of effects; None when no participant has the condition.
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
    ndarray of bool of shape (V,), or None
        Those of the second-level z-map above 2.33; None with fewer than two participants.
    """
    usable, counts = _usable(maps, counts)
    t = one_sample_t(usable, counts)
    return t > t_limit(int(counts.sum())) if np.isfinite(t).all() else None


def dice(first: np.ndarray | None, second: np.ndarray | None) -> float:
    """Overlap of two sets of voxels.

    Parameters
    ----------
    first, second : ndarray of bool of shape (V,), or None
        Active voxels of a generator's and of the real map.

    Returns
    -------
    float
        ``2 |A ∩ B| / (|A| + |B|)``; NaN where the real map has no active voxel.
    """
    if first is None or second is None or not second.any():
        return NAN
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


def compare(comparison: Comparison) -> Estimates:
    """Compare the active voxels of a generator's group maps with the real ones.

    Parameters
    ----------
    comparison : Comparison
        The generator beside the real data, on one level of conditions.

    Returns
    -------
    dict
        ``dice`` and ``dice_z``, means over conditions; their floor is that of
        conditions taken for each other. Empty for trial types: a Dice for each
        of many small conditions says little.
    """
    level, rows = comparison.level, comparison.rows
    if level.suffix == "_trial_type":
        return {}
    tables, training = comparison.cohort.tables, comparison.cohort.training
    return _compare(
        comparison,
        lambda c: level.voxels(tables[comparison.source], c),
        lambda c: level.voxels(tables[REAL], c)[rows],
        (lambda c: level.voxels(training, c)) if training is not None else None,
    )


def compare_real(comparison: Comparison) -> Estimates:
    """Compare the active voxels of one half of the real runs with those of the other.

    Parameters
    ----------
    comparison : Comparison
        Real data beside themselves, on one level of conditions.

    Returns
    -------
    dict
        As `compare`; empty without two runs of each condition.
    """
    level, real = comparison.level, comparison.cohort.tables[REAL]
    if level.suffix == "_trial_type" or not real.has_halves:
        return {}
    training = comparison.cohort.training
    half = 0 if training is not None and training.has_halves else None
    return _compare(
        comparison,
        lambda c: level.voxels(real, c, 0),
        lambda c: level.voxels(real, c, 1),
        (lambda c: level.voxels(training, c, half)) if training is not None else None,
    )


def _compare(
    comparison: Comparison, synthetic: Reader, real: Reader, training: Reader | None
) -> Estimates:
    """Go through the conditions one by one; every one sees the same draws of participants."""
    n_conditions = len(comparison.level.names)
    own_counts, counts = comparison.draws("bootstrap", _N_BOOTSTRAP)
    ceilings = comparison.once("ceiling", lambda: _ceilings(comparison, real, training))
    active: dict[str, list[tuple[Voxels, Voxels]]] = {name: [] for name in _THRESHOLDS}
    samples: dict[str, list[list[float]]] = {name: [] for name in _THRESHOLDS}
    for c in range(n_conditions):
        maps, real_maps = synthetic(c), real(c)
        for name, find in _THRESHOLDS.items():
            active[name].append((find(maps, None), find(real_maps, None)))
            samples[name].append(
                [
                    dice(find(maps, own), find(real_maps, others))
                    for own, others in zip(own_counts, counts, strict=True)
                ]
            )
    estimates = {}
    for name, pairs in active.items():
        value = finite_mean([dice(*pair) for pair in pairs])
        floor = finite_mean(
            [
                dice(pairs[k][0], pairs[c][1])
                for k in range(n_conditions)
                for c in range(n_conditions)
                if k != c
            ]
        )
        each = [finite_mean(column) for column in zip(*samples[name], strict=True)]
        limits = interval(value, np.array(each), comparison.n_participants, (0.0, 1.0))
        estimates[name] = Estimate(value, *limits, ceilings[name], floor)
    return estimates


def _ceilings(comparison: Comparison, real: Reader, training: Reader | None) -> dict[str, float]:
    """Measure the overlap of as many training participants, as if they were synthetic."""
    if training is None:
        return dict.fromkeys(_THRESHOLDS, NAN)
    draws = matched_draws(
        len(real(0)), len(training(0)), comparison.shared_random("ceiling"), _N_DRAWS
    )
    overlaps: dict[str, list[float]] = {name: [] for name in _THRESHOLDS}
    for c in range(len(comparison.level.names)):
        real_maps, training_maps = real(c), training(c)
        for name, find in _THRESHOLDS.items():
            overlaps[name] += [
                dice(find(training_maps[training_rows], None), find(real_maps[rows], None))
                for rows, training_rows in draws
            ]
    return {name: finite_mean(values) for name, values in overlaps.items()}


def _usable(maps: np.ndarray, counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    present = np.isfinite(maps[:, 0])
    weights = np.ones(len(maps), dtype=int) if counts is None else counts
    return maps[present], weights[present]


_THRESHOLDS: dict[str, Threshold] = {"dice": strongest, "dice_z": significant}
"""Metric → how its active voxels are found."""

FAMILY = Family(
    "overlap",
    "Are the same voxels active?",
    METRICS,
    compare,
    compare_real,
    by_level=True,
)
