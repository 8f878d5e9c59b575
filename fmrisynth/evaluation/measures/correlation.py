"""Correlate synthetic with real group maps, condition by condition."""

from __future__ import annotations

import numpy as np

__all__ = ["cross_correlation", "map_correlation"]


def cross_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson correlation between every map of one set and every map of another.

    Parameters
    ----------
    first : ndarray of shape (n_first, n_voxels)
        Maps; a row of NaN is a condition without data.
    second : ndarray of shape (n_second, n_voxels)
        Maps on the same voxels.

    Returns
    -------
    ndarray of shape (n_first, n_second)
        Correlations; NaN for missing and for constant maps.
    """
    rows = _unit_rows(first)
    others = rows if second is first else _unit_rows(second)
    return rows @ others.T


def map_correlation(synthetic: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Pearson correlation of each synthetic map with the real map of the same condition.

    Parameters
    ----------
    synthetic, real : ndarray of shape (n_conditions, n_voxels)
        Group maps.

    Returns
    -------
    ndarray of shape (n_conditions,)
    """
    return np.einsum("cv,cv->c", _unit_rows(synthetic), _unit_rows(real))


def _unit_rows(maps: np.ndarray) -> np.ndarray:
    """Centre each row and scale it to unit norm; a constant row becomes NaN."""
    centred = maps - maps.mean(axis=1, keepdims=True)
    norm = np.sqrt(np.einsum("cv,cv->c", centred, centred))
    centred /= np.where(norm > 0, norm, np.nan)[:, None]
    return centred
