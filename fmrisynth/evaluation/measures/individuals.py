"""Measure participants' own maps: correlations without the group map, and true variance.

Legend: P participants, C conditions, K trial types, N coordinates or voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from fmrisynth.evaluation.cohort.map_table import MapTable
from fmrisynth.evaluation.cohort.maps import group_mean, merge
from fmrisynth.evaluation.measures.correlation import cross_correlation

__all__ = ["between_variance", "participant_matrices", "participant_matrix", "without_group"]


def participant_matrix(first: np.ndarray, second: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Correlate participants' maps after the group map has been taken out of both.

    Parameters
    ----------
    first, second : ndarray of shape (P, C, N)
        Maps of the same participants.
    group : ndarray of shape (C, N)
        Group map of other participants where there are any.

    Returns
    -------
    ndarray of shape (P, P)
        Partial correlation of each first with each second, averaged over conditions.
    """
    matrices = []
    for c in range(first.shape[1]):
        own = without_group(first[:, c], group[c])
        other = without_group(second[:, c], group[c])
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
    membership : ndarray of shape (C, K)
        Which trial types make up each condition.

    Returns
    -------
    dict
        Generator → (P, P) partial correlations with the real participants;
        ``real`` → one half of the real runs (rows) with the other.
    """
    truth = tables[real]
    if len(truth.participants) < 2 or not len(membership):
        return {}
    source = tables[training] if tables[training].participants else truth

    def of(maps: np.ndarray) -> np.ndarray:
        return merge(maps, membership)

    group = group_mean(source.whole(of))
    matrices = {}
    for name, table in tables.items():
        new = not set(table.participants) <= set(truth.participants)
        if name in (real, training) or len(table.participants) < 2 or new:
            continue
        rows = [truth.participants.index(participant) for participant in table.participants]
        matrices[name] = participant_matrix(table.whole(of), truth.whole(of)[rows], group)
    if len(truth.halved) == len(truth.participants):
        halves = [truth.half(np.full(len(truth.participants), h), of) for h in (0, 1)]
        matrices[real] = participant_matrix(halves[0], halves[1], group)
    return matrices


def between_variance(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], counts: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Variance of the participants' true maps, free of the noise within participants.

    The covariance over participants of two independent halves of their runs:
    noise that the halves do not share has no part in it.

    Parameters
    ----------
    pairs : iterable of (ndarray, ndarray) of shape (P, N)
        For each condition, maps from two halves of the runs of the same participants; NaN where
        there is none.
    counts : ndarray of shape (S, P), optional
        How often each participant is drawn in several samples; once each when left out.

    Returns
    -------
    variance : ndarray of shape (S,)
        Sum over coordinates and mean over conditions, in squared percent signal change.
    error : ndarray of shape (S,)
        Its standard error over conditions; NaN for a single one.
    """
    totals = np.array([_covariance(*pair, counts) for pair in pairs])
    n = np.isfinite(totals).sum(axis=0)
    variance = np.nansum(totals, axis=0) / np.where(n > 0, n, np.nan)
    squares = np.nansum(np.square(totals - variance), axis=0)
    error = np.sqrt(squares / np.where(n > 1, n - 1, np.nan) / np.maximum(n, 1))
    return variance, error


def _covariance(first: np.ndarray, second: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """Covariance over participants of maps (P, N), summed over coordinates: (S,)."""
    present = np.isfinite(first[:, 0]) & np.isfinite(second[:, 0])
    if not present.any():
        return np.full(1 if counts is None else len(counts), np.nan)
    a, b = (maps[present] - maps[present].mean(axis=0) for maps in (first, second))
    drawn = np.ones((1, len(a))) if counts is None else counts[:, present].astype(float)
    n = drawn.sum(axis=1)
    products = drawn @ np.einsum("pn,pn->p", a, b)
    products -= np.einsum("sn,sn->s", drawn @ a, drawn @ b) / np.maximum(n, 1)
    return products / np.where(n > 1, n - 1, np.nan)


def without_group(maps: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Take the mean, and the part that is proportional to the group map, out of each map.

    Parameters
    ----------
    maps : ndarray of shape (n, V)
    group : ndarray of shape (V,)
    """
    centred = maps - maps.mean(axis=1, keepdims=True)
    direction = group - group.mean()
    power = direction @ direction
    if not power > 0:
        return centred
    return centred - np.outer(centred @ direction / power, direction)
