"""Count the synthetic maps that are most like the real map of their own condition (Top-1)."""

from __future__ import annotations

import numpy as np

from fmrisynth.evaluation.measures.correlation import cross_correlation

__all__ = ["identification_matrix", "top1"]


def identification_matrix(synthetic: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Correlation of every synthetic map (rows) with every real map (columns).

    Parameters
    ----------
    synthetic, real : ndarray of shape (n_conditions, n_voxels)
        Group maps in the same order of conditions.

    Returns
    -------
    ndarray of shape (n_conditions, n_conditions)
    """
    return cross_correlation(synthetic, real)


def top1(matrix: np.ndarray) -> float:
    """Share of rows whose largest entry is the diagonal one; chance is ``1 / n_conditions``.

    Parameters
    ----------
    matrix : ndarray of shape (n_conditions, n_conditions)
        From `identification_matrix`. A tie counts as a miss; rows without data
        are left out.

    Returns
    -------
    float
        NaN with fewer than two conditions.
    """
    valid = np.isfinite(np.diag(matrix))
    if valid.sum() < 2:
        return float("nan")
    matrix = matrix[np.ix_(valid, valid)]
    own = np.diag(matrix)
    others = np.where(np.eye(len(matrix), dtype=bool), -np.inf, matrix)
    return float(np.mean(own > others.max(axis=1)))
