"""Individuals: whether a synthetic map resembles its own participant's real one.

Maps are compared on blocks of 12 mm, where the noise of single voxels averages out.

Array legend: ``P`` participants, ``C`` conditions, ``N`` coordinates or voxels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fmrisynth.evaluation.correlation import cross_correlation
from fmrisynth.evaluation.identification import top1
from fmrisynth.evaluation.maps import MapTable, group_mean, merge
from fmrisynth.evaluation.resampling import (
    N_SHUFFLES,
    NAN,
    Figure,
    average_of,
    bootstrap_counts,
    interval,
)

__all__ = [
    "between_variance",
    "compare_individuals",
    "participant_matrices",
    "participant_matrix",
]

Halves = tuple[np.ndarray, np.ndarray]

_BOUNDS = {"individual_identification": (0.0, 1.0), "individual_correlation": (-1.0, 1.0)}


def participant_matrix(first: np.ndarray, second: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Correlate participants' maps after the group map has been taken out of both.

    Parameters
    ----------
    first, second : ndarray, shape (P, C, N)
        Maps of the same participants.
    group : ndarray, shape (C, N)
        Group map of other participants where there are any.

    Returns
    -------
    ndarray, shape (P, P)
        Partial correlation of each first with each second, averaged over conditions.
    """
    matrices = []
    for c in range(first.shape[1]):
        own = _without(first[:, c], group[c])
        other = _without(second[:, c], group[c])
        matrices.append(cross_correlation(own, other))
    stacked = np.array(matrices)
    count = np.isfinite(stacked).sum(axis=0)
    return np.nansum(stacked, axis=0) / np.where(count > 0, count, np.nan)


def participant_matrices(
    tables: Mapping[str, MapTable], real: str, training: str, membership: np.ndarray
) -> dict[str, np.ndarray]:
    """Matrices of participants for the report.

    Parameters
    ----------
    tables : mapping
        Source → MapTable.
    real, training : str
        Names of the real held-out and of the real training data.
    membership : ndarray, shape (C, K)
        Which trial types make up each condition.

    Returns
    -------
    dict
        Generator → (P, P) partial correlations with the real participants;
        ``real`` → one half of the real runs (rows) with the other.
    """
    truth = tables[real]
    if len(truth.participants) < 2:
        return {}
    source = tables[training] if tables[training].participants else truth
    group = group_mean(merge(source.whole(), membership))
    matrices = {}
    for name, table in tables.items():
        if name in (real, training) or len(table.participants) < 2:
            continue
        rows = [truth.participants.index(person) for person in table.participants]
        matrices[name] = participant_matrix(
            merge(table.whole(), membership), merge(truth.whole()[rows], membership), group
        )
    if truth.has_halves:
        halves = [
            merge(truth.half(np.full(len(truth.participants), h)), membership) for h in (0, 1)
        ]
        matrices[real] = participant_matrix(halves[0], halves[1], group)
    return matrices


def between_variance(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Variance of the participants' true maps, free of the noise within participants.

    The covariance over participants of two independent halves of their runs:
    noise that the halves do not share has no part in it.

    Parameters
    ----------
    first, second : ndarray, shape (P, C, N)
        Maps from two halves of the runs of the same participants.

    Returns
    -------
    variance : float
        Sum over coordinates and mean over conditions, in squared percent signal change.
    error : float
        Its standard error over conditions; NaN for a single one.
    """
    present = np.isfinite(first[..., 0]) & np.isfinite(second[..., 0])
    totals = []
    for c in range(first.shape[1]):
        a, b = first[present[:, c], c], second[present[:, c], c]
        if len(a) > 1:
            products = (a - a.mean(axis=0)) * (b - b.mean(axis=0))
            totals.append(products.sum() / (len(a) - 1))
    if not totals:
        return NAN, NAN
    error = float(np.std(totals, ddof=1) / np.sqrt(len(totals))) if len(totals) > 1 else NAN
    return float(np.mean(totals)), error


def compare_individuals(
    made: MapTable,
    real: MapTable,
    training: MapTable | None,
    membership: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, Figure]:
    """Figures of individuals, with the test–retest ceiling of real data.

    One half of the synthetic runs is compared with the other half of the real
    ones, and the ceiling one half of the real runs with the other, so that
    both rest on as many runs. Without two runs of each condition all runs are
    used, and there is no ceiling.

    Parameters
    ----------
    made, real : MapTable
        Generator and real held-out participants; made may have fewer.
    training : MapTable or None
        Source of the group map that is taken out, and of the ceiling of diversity.
    membership : ndarray, shape (C, K)
        Which trial types make up each condition.
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    dict
        ``individual_identification`` (chance ``1 / P``), ``individual_correlation``
        (floor: with other participants), ``diversity_participants_ratio``
        (synthetic / real variance between participants) and
        ``map_variance_ratio`` (the same with the noise of the maps).
    """
    rows = np.array([real.participants.index(person) for person in made.participants])
    if len(rows) < 2:
        return {}
    split = real.has_halves and made.has_halves
    whole = merge(made.whole(), membership), merge(real.whole()[rows], membership)
    source = real if training is None else training
    group = group_mean(merge(source.whole(), membership))
    if split:
        synthetic, truth = _halves(made, membership), _halves(real, membership, rows)
        pairs = [(synthetic[0], truth[1]), (synthetic[1], truth[0])]
        ceiling_matrix = participant_matrix(*truth, group)
    else:
        pairs = [whole]
        ceiling_matrix = np.full((len(rows), len(rows)), NAN)
    matrix = np.mean([participant_matrix(a, b, group) for a, b in pairs], axis=0)
    figures = _identity_figures(matrix, ceiling_matrix, rng)
    others = training is not None and training.has_halves and len(training.participants) > 1
    if split:
        # At the level of trial types, which are more: the error is over conditions.
        each = np.eye(membership.shape[1])
        figures["diversity_participants_ratio"] = _ratio(
            _halves(made, each),
            _halves(real, each, rows),
            _halves(training, each) if training is not None and others else None,
            rng,
        )
    figures["map_variance_ratio"] = _ratio((whole[0], whole[0]), (whole[1], whole[1]), None, rng)
    return figures


def _halves(table: MapTable, membership: np.ndarray, rows: np.ndarray | None = None) -> Halves:
    """Both halves of the runs of each participant, each (P, C, N)."""
    n = len(table.participants)
    first, second = (merge(table.half(np.full(n, h)), membership) for h in (0, 1))
    return (first, second) if rows is None else (first[rows], second[rows])


def _identity_figures(
    matrix: np.ndarray, ceiling_matrix: np.ndarray, rng: np.random.Generator
) -> dict[str, Figure]:
    n = len(matrix)
    counts = bootstrap_counts(n, rng)
    orders = [rng.permutation(n) for _ in range(N_SHUFFLES)]
    hits = _hits(matrix)
    own = np.diag(matrix)
    shuffled = average_of(
        [
            {"rate": float(np.mean(_hits(matrix[:, order]))), "r": float(np.mean(own_))}
            for order in orders
            if len(own_ := matrix[np.arange(n), order])
        ]
    )
    values = {
        "individual_identification": (hits, top1(ceiling_matrix), shuffled["rate"]),
        "individual_correlation": (own, float(np.mean(np.diag(ceiling_matrix))), shuffled["r"]),
    }
    figures = {}
    for name, (per_person, ceiling, floor) in values.items():
        value = float(np.mean(per_person))
        samples = counts @ per_person / n
        figures[name] = Figure(value, *interval(value, samples, _BOUNDS[name]), ceiling, floor)
    return figures


def _hits(matrix: np.ndarray) -> np.ndarray:
    """Tell for each row whether its diagonal entry is the largest."""
    others = np.where(np.eye(len(matrix), dtype=bool), -np.inf, matrix)
    return (np.diag(matrix) > others.max(axis=1)).astype(float)


def _ratio(made: Halves, real: Halves, training: Halves | None, rng: np.random.Generator) -> Figure:
    """Synthetic over real variance between participants, with its interval and ceiling.

    NaN where the real participants themselves do not differ beyond noise:
    there is nothing to reach then.
    """
    n = len(real[0])
    true, error = between_variance(*real)
    if not true > 2.5 * error:
        return Figure(NAN)
    value = between_variance(*made)[0] / true
    samples = []
    for counts in bootstrap_counts(n, rng, 200):
        rows = np.repeat(np.arange(n), counts)
        below = between_variance(real[0][rows], real[1][rows])[0]
        if (counts > 0).sum() > 1 and below > 0:
            samples.append(between_variance(made[0][rows], made[1][rows])[0] / below)
    ceiling = between_variance(*training)[0] / true if training is not None else NAN
    return Figure(value, *interval(value, np.array(samples)), ceiling)


def _without(maps: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Take the part that is proportional to the group map out of each centred map."""
    centred = maps - maps.mean(axis=1, keepdims=True)
    direction = group - group.mean()
    power = direction @ direction
    if not power > 0:
        return centred
    return centred - np.outer(centred @ direction / power, direction)
