"""Relate the smoothness of images to the correlation of neighbouring voxels.

Legend: X Y Z grid, V voxels of the brain.
"""

from __future__ import annotations

import numpy as np

__all__ = ["FWHM_PER_SIGMA", "correlation_of_fwhm", "fwhm_of_correlation", "neighbours"]

FWHM_PER_SIGMA = 2.3548
"""Full width at half maximum of a Gaussian over its standard deviation."""


def neighbours(mask: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the pairs of voxels of a brain that are neighbours along an axis.

    Parameters
    ----------
    mask : ndarray of shape (X, Y, Z), bool
        The brain.
    axis : int
        0, 1 or 2.

    Returns
    -------
    near, far : ndarray of int of shape (pairs,)
        Numbers of the voxels among those of the brain.
    """
    number = np.full(mask.shape, -1, dtype=np.int64)
    number[mask] = np.arange(mask.sum())
    near = np.take(number, np.arange(mask.shape[axis] - 1), axis=axis).ravel()
    far = np.take(number, np.arange(1, mask.shape[axis]), axis=axis).ravel()
    both = (near >= 0) & (far >= 0)
    return near[both], far[both]


def fwhm_of_correlation(correlation: float, edge: float) -> float:
    """Compute the smoothness of white noise whose neighbours a Gaussian filter correlates.

    Parameters
    ----------
    correlation : float
        Of neighbours, less than 1.
    edge : float
        Distance of neighbours, mm.

    Returns
    -------
    float
        Full width at half maximum, mm (Forman et al. 1995, MRM 33, 636–647); 0 where neighbours are
        not correlated.
    """
    if correlation <= 0:
        return 0.0
    return edge * float(np.sqrt(-2.0 * np.log(2.0) / np.log(correlation)))


def correlation_of_fwhm(fwhm: float, edge: float) -> float:
    """Compute the correlation of neighbours at a smoothness; inverse of `fwhm_of_correlation`.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum, mm; 0 for none.
    edge : float
        Distance of neighbours, mm.
    """
    return float(np.exp(-2.0 * np.log(2.0) * (edge / fwhm) ** 2)) if fwhm > 0 else 0.0
