"""Compare how conditions differ from each other (representational similarity)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from fmrisynth.evaluation.measures.correlation import cross_correlation

__all__ = ["Rsa", "dissimilarity", "rsa", "rsa_from_rdms"]


@dataclass(frozen=True)
class Rsa:
    """Agreement of two dissimilarity matrices.

    Attributes
    ----------
    spearman, pearson : float
        Correlation of the upper triangles; NaN below three pairs.
    n_pairs : int
        Number of pairs of conditions the correlation rests on.
    """

    spearman: float
    pearson: float
    n_pairs: int


def dissimilarity(maps: np.ndarray) -> np.ndarray:
    """Representational dissimilarity matrix, ``1 − Pearson r`` between the maps.

    Parameters
    ----------
    maps : ndarray of shape (n_conditions, n_voxels)
        Group maps.

    Returns
    -------
    ndarray of shape (n_conditions, n_conditions)
    """
    return 1.0 - cross_correlation(maps, maps)


def rsa(synthetic: np.ndarray, real: np.ndarray) -> Rsa:
    """Compare the dissimilarity structure of synthetic and real group maps.

    Parameters
    ----------
    synthetic, real : ndarray of shape (n_conditions, n_voxels)
        Group maps.

    Returns
    -------
    Rsa
    """
    return rsa_from_rdms(dissimilarity(synthetic), dissimilarity(real))


def rsa_from_rdms(synthetic: np.ndarray, real: np.ndarray) -> Rsa:
    """Compare two dissimilarity matrices over the pairs both have.

    Parameters
    ----------
    synthetic, real : ndarray of shape (n_conditions, n_conditions)
        Matrices from `dissimilarity`.

    Returns
    -------
    Rsa
    """
    upper = np.triu_indices(len(real), k=1)
    first, second = synthetic[upper], real[upper]
    both = np.isfinite(first) & np.isfinite(second)
    first, second = first[both], second[both]
    if len(first) < 3:  # with two pairs every correlation is ±1
        return Rsa(np.nan, np.nan, len(first))
    return Rsa(_pearson(rankdata(first), rankdata(second)), _pearson(first, second), len(first))


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    return float(cross_correlation(first[None], second[None])[0, 0])
