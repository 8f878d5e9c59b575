"""Measure how large synthetic effects are for a given real effect."""

from __future__ import annotations

import numpy as np

__all__ = ["effect_slope"]


def effect_slope(synthetic: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Slope of the regression of each synthetic map on the real map of the same condition.

    Noise in the real map lowers the slope, so it is to be read beside the
    slope that real training runs have, never against 1.

    Parameters
    ----------
    synthetic, real : ndarray of shape (n_conditions, n_voxels)
        Group maps, in percent signal change.

    Returns
    -------
    ndarray of shape (n_conditions,)
        Slopes; NaN where the real map is constant or missing.
    """
    x = real - real.mean(axis=1, keepdims=True)
    y = synthetic - synthetic.mean(axis=1, keepdims=True)
    power = np.einsum("cv,cv->c", x, x)
    return np.einsum("cv,cv->c", y, x) / np.where(power > 0, power, np.nan)
